"""Step 4: dataset rows -> prompt and completion, deduplicated, split by schema -> d_04_training_corpus.jsonl.

python scripts/build_training_corpus.py
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.data.corpus import write_corpus


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["dataset", "prompt"])
    where = paths(settings)
    if not dry_run(settings, reads=[where.dataset], writes=[where.corpus]):
        write_corpus(settings)
        print(f"corpus: {where.corpus}")


if __name__ == "__main__":
    run_script(main)
