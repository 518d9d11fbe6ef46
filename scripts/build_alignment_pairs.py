"""Step 8: the SFT student's samples, ranked by verdict -> chosen, rejected -> student_runs/alignment/dpo_pairs.jsonl.

Of more requests than --pair-prompts those are taken that the student would get wrong: it reads each with its answer.

python scripts/build_alignment_pairs.py --samples-per-prompt 4
python scripts/build_alignment_pairs.py --pair-prompts 500 --mutations-per-prompt 1
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.preference.pairs import build_pairs


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["student", "pairs", "teacher", "prompt"])
    where = paths(settings)
    if not dry_run(settings, reads=[where.dataset, where.sft_checkpoint], writes=[where.pairs]):
        build_pairs(settings)
        print(f"pairs: {where.pairs}")


if __name__ == "__main__":
    run_script(main)
