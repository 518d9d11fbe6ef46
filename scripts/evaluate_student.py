"""Steps 6, 7 and 10: a student answers the test prompts, each answer is judged -> student_runs/eval/NAME/.

python scripts/evaluate_student.py --eval-student base
python scripts/evaluate_student.py --adapter outputs/student_runs/student/checkpoint-final
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import evaluated, paths
from schema_student.core.processes import run_script
from schema_student.evaluation.evaluate import evaluate_student


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["student", "eval", "teacher", "prompt"])
    where = paths(settings)
    name, adapter = evaluated(settings)
    if not dry_run(settings, reads=[where.dataset], writes=[where.eval_dir(name)]):
        evaluate_student(settings, name, adapter)
        print(f"evaluation of {name}: {where.eval_dir(name) / 'evaluation_summary.json'}")


if __name__ == "__main__":
    run_script(main)
