"""Step 9: DPO with a dynamic beta on the pairs -> student_runs/RUN-dpo/.

python scripts/train_alignment_dpo.py --beta-controller calibrated
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("align")
