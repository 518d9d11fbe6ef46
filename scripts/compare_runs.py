"""Put the DPO runs of several names side by side -> reports/A-vs-B/compare.html, compare.md, compare.png.

python scripts/compare_runs.py --runs fixed,calibrated,beta_dpo
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("compare")
