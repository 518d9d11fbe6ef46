"""Step 11: all artifacts of a run -> reports/RUN/report.md, report.html and plots; only reads.

python scripts/report_training.py --run student
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.report.pages import write_report


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["eval"])
    where = paths(settings)
    if not dry_run(settings, reads=[where.evals], writes=[where.report_dir]):
        write_report(settings)
        print(f"report: {where.report_dir / 'report.html'}")


if __name__ == "__main__":
    run_script(main)
