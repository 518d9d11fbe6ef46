"""Step 3: the teacher writes requests and answers for each schema; valid ones stay -> d_03_dataset.jsonl, d_03_hub/.

python scripts/generate_dataset.py --schemas my_schemas/ --run mine
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("generate")
