"""Write the published JSON Schema of the configuration -> config/schema.json (a test holds that it is current).

python scripts/write_config_schema.py
"""

from schema_student.core.jsonl import write_json
from schema_student.core.processes import run_script
from schema_student.core.resources import CONFIG_DIR
from schema_student.core.settings import config_schema


def main() -> None:
    write_json(CONFIG_DIR / "schema.json", config_schema())
    print(f"schema of the configuration: {CONFIG_DIR / 'schema.json'}")


if __name__ == "__main__":
    run_script(main)
