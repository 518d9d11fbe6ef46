"""Step 1: the teacher writes domain specs (fields, their values, example queries) -> d_01_domain_specs.jsonl.

python scripts/generate_domain_specs.py --teacher-model gpt-oss:120b --domains 60
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("domains")
