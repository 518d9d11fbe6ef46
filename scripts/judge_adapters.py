"""Let the teacher compare two adapters' answers to the test prompts -> duels/A-vs-B/duel_summary.json.

python scripts/judge_adapters.py --adapters outputs/student_runs/student-dpo/checkpoint-final,base
python scripts/judge_adapters.py --adapters A,B --teacher-model gpt-oss:120b --eval-limit 100
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.evaluation.pairwise import duel_dir, judge_adapters, name_duel


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["duel", "student", "eval", "teacher"])
    summary = duel_dir(settings) / "duel_summary.json"
    if not dry_run(settings, reads=[paths(name_duel(settings)[0]).dataset], writes=[summary]):
        print(f"duel: {judge_adapters(settings)}")


if __name__ == "__main__":
    run_script(main)
