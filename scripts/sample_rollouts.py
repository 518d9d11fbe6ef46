"""Sample k answers a prompt and score them -> rollouts/RUN/: rollout_{responses,judged}.jsonl, manifest.json.

python scripts/sample_rollouts.py --rollout-scorer schema --samples-per-prompt 8
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("rollouts")
