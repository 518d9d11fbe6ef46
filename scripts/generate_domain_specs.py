"""Step 1: the teacher writes domain specs (fields, their values, example queries) -> d_01_domain_specs.jsonl.

python scripts/generate_domain_specs.py --teacher-model gpt-oss:120b --domains 60
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.data.domains import write_domain_specs


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["teacher", "dataset"])
    specs = paths(settings).domain_specs
    if settings.run.schemas:
        print(f"skipped: the schemas are yours ({settings.run.schemas})")
    elif not dry_run(settings, reads=[], writes=[specs]):
        write_domain_specs(settings)
        print(f"domain specs: {specs}")


if __name__ == "__main__":
    run_script(main)
