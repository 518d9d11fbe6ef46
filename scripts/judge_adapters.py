"""Let the teacher compare two adapters' answers to the test prompts -> duels/A-vs-B/duel_summary.json.

python scripts/judge_adapters.py --adapters outputs/student_runs/student-dpo/checkpoint-final,base
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("pairwise")
