"""Put the DPO runs of several names side by side -> outputs/reports/A-vs-B/compare.html, compare.md, compare.png.

python scripts/compare_runs.py --runs fixed,calibrated,beta_dpo
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.report.compare_runs import comparison_dir, write_comparison


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["report"])
    page = comparison_dir(settings) / "compare.html"
    logs = [paths(settings.changed(run=name)).dpo_dir / "training_metrics.jsonl" for name in settings.compare.runs]
    if not dry_run(settings, reads=logs, writes=[page]):
        print(f"side by side: {write_comparison(settings)}")


if __name__ == "__main__":
    run_script(main)
