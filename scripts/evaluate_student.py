"""Steps 6, 7 and 9: a student answers the test prompts, each answer is judged -> student_runs/eval/NAME/.

python scripts/evaluate_student.py --eval-student base
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("evaluate")
