"""Part of step 8: a student's samples, ranked by verdict -> pairs -> student_runs/alignment/dpo_pairs.jsonl.

python scripts/build_alignment_pairs.py --samples-per-prompt 4
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("pairs")
