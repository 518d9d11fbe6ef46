"""Recompute a DPO run's beta_trace.jsonl from its margins.jsonl; exit 1 at the first difference.

python scripts/replay_beta.py --run student
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("replay-beta")
