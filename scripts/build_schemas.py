"""Step 2: domain specs + operators + template -> one JSON Schema a domain -> d_02_final_schemas.jsonl.

python scripts/build_schemas.py
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("schemas")
