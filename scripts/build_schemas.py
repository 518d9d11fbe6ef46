"""Step 2: domain specs + operators + template -> one JSON Schema a domain -> d_02_final_schemas.jsonl.

python scripts/build_schemas.py
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.data.domains import write_schemas


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["dataset"])
    where = paths(settings)
    if settings.run.schemas:
        print(f"skipped: the schemas are yours ({settings.run.schemas})")
    elif not dry_run(settings, reads=[where.domain_specs], writes=[where.schemas]):
        write_schemas(settings)
        print(f"schemas: {where.schemas}")


if __name__ == "__main__":
    run_script(main)
