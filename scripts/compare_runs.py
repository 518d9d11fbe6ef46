"""Put runs and evaluations side by side, each two tested -> reports/A-vs-B/compare.html, compare.md, compare.json.

python scripts/compare_runs.py --runs fixed,calibrated,beta_dpo
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("compare")
