"""Step 10: all artifacts of a run -> reports/RUN/report.md, report.html and plots; only reads.

python scripts/report_training.py --run student
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("report")
