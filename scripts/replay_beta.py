"""Recompute a DPO run's beta_trace.jsonl from its margins.jsonl; exit 1 at the first difference.

python scripts/replay_beta.py --run student
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.training.dpo.beta import replay_run


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["dpo"])
    run_dir = paths(settings).dpo_dir
    if not dry_run(settings, reads=[run_dir / "margins.jsonl", run_dir / "beta_trace.jsonl"], writes=[]):
        print(f"replayed: {replay_run(run_dir)} rows of {run_dir / 'beta_trace.jsonl'}, no difference")


if __name__ == "__main__":
    run_script(main)
