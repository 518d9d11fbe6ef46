"""Step 5: LoRA SFT of the student on the corpus -> student_runs/RUN/.

python scripts/train_student.py --sft-epochs 2
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("train")
