"""Step 4: dataset rows -> prompt and completion, deduplicated, split by schema -> d_04_training_corpus.jsonl.

python scripts/build_training_corpus.py
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("corpus")
