"""Requests for a room that tests of evaluation ask: their form, right answers, and a student that writes given ones."""

import json

import tiny

from schema_student.cli.main import VERBS
from schema_student.student import generation

FORM = {
    "type": "object",
    "properties": {"city": {"enum": ["Lyon", "Paris"]}, "nights": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}
ANSWERS = {  # what a student may write
    "two nights in Lyon": '{"city":"Lyon","nights":2}',  # what was asked
    "one night in Paris": '{"nights":1,"city":"Paris"}',  # the same in another order
    "Paris for long": '{"city":"Lyon"}',  # valid, not what was asked
    "a room in Lyon": '{"city":"Rome"}',  # not in the enum
    "a room in Paris": '{"city":"Paris"',  # not JSON
}
TARGETS = {
    "two nights in Lyon": {"city": "Lyon", "nights": 2},
    "one night in Paris": {"city": "Paris", "nights": 1},
    "Paris for long": {"city": "Paris", "nights": 30},
    "a room in Lyon": {"city": "Lyon"},
    "a room in Paris": {"city": "Paris"},
}


def dataset_row(query, target, split="test_seen", schema=FORM, **more):
    row = {"schema_id": "form", "domain": "hotels", "operators": [], "schema_json": json.dumps(schema), "query": query}
    row |= {"current_date": "2026-01-31", "ast_json": json.dumps(target), "is_valid": True, "split": split}
    return {**row, "language": "en", "kind": "answerable", "accepted": None, **more}


def own_row(query, answer=None, **more):
    row = {"schema_id": "form", "schema": FORM, "query": query, "current_date": "2026-01-31", **more}
    return row | ({"answer": answer} if answer is not None else {})


OWN = [
    own_row("two nights in Lyon", {"city": "Lyon", "nights": 2}),
    own_row("Paris for long", {"city": "Paris", "nights": 30}),
    own_row("somewhere nice"),
    own_row("nowhere"),
]

OWN_ANSWERS = {
    "two nights in Lyon": '{"city":"Lyon","nights":2}',
    "Paris for long": '{"city":"Lyon"}',
    "somewhere nice": '{"city":"Paris"}',
    "nowhere": '{"city":"Rome"}',
}


def let_students_write(monkeypatch, answers):
    """Let any student answer a request by what `answers` says: {query: text}."""

    def generate(student, prompts, max_new_tokens, batch_size, progress="", schemas=None, others_below=None):
        texts = [next(text for query, text in answers.items() if f"Request: {query}" in prompt) for prompt in prompts]
        progress.update(len(prompts))
        return [[generation.Generation(text, len(text), True, 0.01)] for text in texts]

    monkeypatch.setattr(generation, "generate", generate)


def evaluate(tmp_path, *flags):
    """Run the verb on the tiny base; the folder of its one evaluation."""
    base = tiny.save_tiny(tmp_path / "base")
    given = ["--base-model", str(base), "--dtype", "float32", "--max-new-tokens", "8", "--eval-batch-size", "2"]
    given += ["--teacher-model", "embedded-teacher", "--output-dir", str(tmp_path)]
    VERBS["evaluate"]([*given, *flags])
    (folder,) = (tmp_path / "student_runs" / "eval").iterdir()
    return folder
