"""Take in a teacher's answers that someone else exported -> outputs/teacher_cache.sqlite.

python scripts/import_teacher_answers.py --teacher-answers answers.jsonl
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("import-answers")
