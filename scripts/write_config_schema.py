"""Write the published JSON Schema of the configuration -> config/schema.json (a test holds that it is current).

python scripts/write_config_schema.py
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("config", "--schema")
