"""Sample k answers a prompt and score them -> rollouts/RUN/: rollout_{responses,judged}.jsonl, manifest.json.

python scripts/sample_rollouts.py --adapter outputs/student_runs/student/checkpoint-final
python scripts/sample_rollouts.py --data-set prompts.jsonl --rollout-scorer reward --reward-model models/rm
python scripts/sample_rollouts.py --rollout-source teacher --teacher-model qwen3:32b --samples-per-prompt 8
train-beta-dpo --data-set outputs/rollouts/student/rollout_judged.jsonl --run on-policy
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.preference.rollouts import make_rollouts


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["data", "student", "pairs", "rollouts", "teacher"])
    where = paths(settings)
    judged = where.rollouts / "rollout_judged.jsonl"
    if not dry_run(settings, reads=[] if settings.data.data_set else [where.dataset], writes=[judged]):
        print(f"judged rollouts: {make_rollouts(settings)}")


if __name__ == "__main__":
    run_script(main)
