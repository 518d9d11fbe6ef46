"""Export a student, tried on test prompts -> exports/RUN/KIND/.

python scripts/export_student.py --run student --kind merged
"""

from schema_student.cli.main import run_verb

if __name__ == "__main__":
    run_verb("export")
