"""Part of step 8: DPO with a dynamic beta on pairs that are there -> student_runs/RUN-dpo/.

python scripts/train_alignment_dpo.py --beta-controller calibrated
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("dpo")
