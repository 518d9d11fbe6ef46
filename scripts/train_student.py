"""Step 5: LoRA SFT of the student on the corpus -> student_runs/RUN/.

python scripts/train_student.py --sft-epochs 2
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.training.local_workers import share_cores


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["student", "sft", "tracker"])
    where = paths(settings)
    if not dry_run(settings, reads=[where.corpus], writes=[where.run_dir]):
        with share_cores(settings, where.run_dir, "gradient_accumulation", "sft_batch_size") as share:
            from schema_student.training.sft import train_sft

            train_sft(share)
        print(f"SFT student: {where.run_dir / 'checkpoint-final'}")


if __name__ == "__main__":
    run_script(main)
