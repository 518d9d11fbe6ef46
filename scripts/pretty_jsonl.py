"""Each JSONL artifact of a run as indented JSON for reading -> outputs/pretty/RUN-*.json.

python scripts/pretty_jsonl.py --run student
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.operate.pretty import write_pretty


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__)
    if not dry_run(settings, reads=paths(settings).jsonl_files(), writes=[paths(settings).pretty]):
        for path in write_pretty(settings):
            print(f"pretty: {path}")


if __name__ == "__main__":
    run_script(main)
