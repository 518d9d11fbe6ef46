"""Step 8: alignment by a chain of objectives (--align), each from the adapter of the one before -> RUN-OBJECTIVE/.

python scripts/align_student.py --align expected_reward,dpo
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("align")
