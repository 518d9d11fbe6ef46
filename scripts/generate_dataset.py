"""Step 3: the teacher writes queries and answers for each schema; those that are valid are kept -> d_03_dataset.jsonl.

python scripts/generate_dataset.py
python scripts/generate_dataset.py --schemas my_schemas/ --run mine
"""

import sys
from pathlib import Path

from schema_student.artifacts import dry_run, paths
from schema_student.config import load_settings, run_script
from schema_student.dataset import write_dataset


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["teacher", "dataset", "prompt"])
    where = paths(settings)
    reads = Path(settings.schemas) if settings.schemas else where.schemas
    if not dry_run(settings, reads=[reads], writes=[where.dataset]):
        write_dataset(settings)
        print(f"dataset: {where.dataset}")


if __name__ == "__main__":
    run_script(main)
