"""Write the teacher's answers that are on disk as JSONL, to be shared -> outputs/teacher_answers.jsonl.

python scripts/export_teacher_answers.py --teacher-answers answers.jsonl
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("export-answers")
