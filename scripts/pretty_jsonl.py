"""Each JSONL artifact of a run as indented JSON for reading -> outputs/pretty/RUN-*.json.

python scripts/pretty_jsonl.py --run student
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("pretty")
