"""Step 9: DPO with a dynamic beta on the pairs -> student_runs/RUN-dpo/.

python scripts/train_alignment_dpo.py --beta-controller calibrated
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.training.local_workers import share_cores


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["student", "dpo", "tracker"])
    where = paths(settings)
    if not dry_run(settings, reads=[where.pairs, where.sft_checkpoint], writes=[where.dpo_dir]):
        with share_cores(settings, where.dpo_dir, "dpo_gradient_accumulation", "dpo_batch_size") as share:
            from schema_student.training.dpo.train import train_dpo

            train_dpo(share)
        print(f"aligned student: {where.dpo_checkpoint}")


if __name__ == "__main__":
    run_script(main)
