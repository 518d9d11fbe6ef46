"""Write the published JSON Schema of the configuration -> config/schema.json (a test holds that it is current).

python scripts/write_config_schema.py
"""

from schema_student.artifacts import write_json
from schema_student.config import CONFIG_DIR, config_schema, run_script


def main() -> None:
    write_json(CONFIG_DIR / "schema.json", config_schema())
    print(f"schema of the configuration: {CONFIG_DIR / 'schema.json'}")


if __name__ == "__main__":
    run_script(main)
