"""Variants of the user's own requests: other values in the same words, in the request and in its answer."""

import json
import random
from pathlib import Path

import pytest

from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.settings import default_settings
from schema_student.data.dataset import write_dataset
from schema_student.data.grounding import ungrounded_values
from schema_student.data.variants import exchange_values
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import is_valid
from schema_student.teacher.embedded.concepts import draw_like

BFCL = Path(__file__).parents[2] / "examples" / "bfcl"
SCHEMA = compile_schema(
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "price": {"type": "number"},
            "days": {"type": "integer", "maximum": 9},
            "kind": {"enum": ["red", "blue"]},
            "flag": {"type": "boolean"},
            "stops": {"type": "array", "items": {"type": "string"}},
        },
    }
)


def exchanged(query, answer, new):
    """With the new value of each property in `new`."""
    return exchange_values(query, answer, SCHEMA, lambda name, *_: new.get(name), random.Random(0))


@pytest.mark.parametrize(
    ("query", "answer", "new", "expected"),
    [
        (
            "to Oslo for 5 days",
            {"city": "Oslo", "days": 5},
            {"city": "Rome", "days": 7},
            ("to Rome for 7 days", "Rome", 7),
        ),
        (
            "to Oslo for five days",
            {"city": "Oslo", "days": 5},
            {"city": "Rome", "days": 7},
            ("to Rome for five days", "Rome", 5),
        ),
        ("to Oslo, Oslo!", {"city": "Oslo", "days": 1}, {"city": "Rome"}, None),
        ("to Oslov", {"city": "Oslo", "days": 1}, {"city": "Rome"}, None),
        ("to Oslo", {"city": "Oslo", "days": 1}, {"city": 3}, None),
    ],
)
def test_what_stands_once_in_the_request_is_exchanged_in_both(query, answer, new, expected):
    found = exchanged(query, answer, new)
    assert (found and (found[0], found[1]["city"], found[1]["days"])) == expected


def test_the_form_of_a_number_is_kept():
    assert exchanged("at most 1,200 a day", {"price": 1200.0}, {"price": 3400.0}) == (
        "at most 3,400 a day",
        {"price": 3400.0},
    )
    assert exchanged("at most 12 a day", {"price": 12.0}, {"price": 24.0}) == ("at most 24 a day", {"price": 24.0})
    assert exchanged("at 5% a day", {"price": 5.0}, {"price": 7.0}) is None  # a percentage is another number


def test_enums_booleans_and_what_would_be_invalid_stay():
    assert exchanged("a red one", {"kind": "red"}, {"kind": "blue"}) is None
    assert exchanged("True or not", {"flag": True}, {"flag": False}) is None
    assert exchanged("for 5 days", {"days": 5}, {"days": 70}) is None


def test_items_of_lists_are_exchanged_each_in_its_place():
    found = exchange_values(
        "via Oslo and Bergen",
        {"stops": ["Bergen", "Oslo"]},
        SCHEMA,
        lambda _name, _schema, old, _rng: {"Oslo": "Rome", "Bergen": "Paris"}[old],
        random.Random(0),
    )
    assert found == ("via Rome and Paris", {"stops": ["Paris", "Rome"]})


def test_most_real_requests_have_variants_that_give_their_values():
    rows = [json.loads(line) for line in (BFCL / "simple.jsonl").read_text(encoding="utf-8").splitlines()[::5]]
    made = []
    for row in rows:
        schema = compile_schema(row["schema"])
        found = exchange_values(row["query"], row["answer"], schema, draw_like, random.Random(row["query"]))
        if found is not None:
            made.append((row, found))
            assert is_valid(found[1], schema) and found[0] != row["query"]
    assert len(made) > 0.7 * len(rows)
    before = sum(bool(ungrounded_values(row["query"], row["answer"], row["schema"])) for row, _ in made)
    after = sum(bool(ungrounded_values(query, answer, row["schema"])) for row, (query, answer) in made)
    assert after <= before + 0.03 * len(made)


def test_only_training_requests_get_variants_and_no_test_overlaps_with_them(tmp_path):
    write_jsonl(tmp_path / "own.jsonl", read_jsonl(BFCL / "simple.jsonl")[:24])
    settings = default_settings(
        output_dir=str(tmp_path),
        schemas=str(tmp_path / "own.jsonl"),
        teacher_model="embedded",
        base_model="embedded",
        **{"train_queries": 2, "pair_queries": 0, "eval_queries": 2, "own_variants": 3},
    )
    rows = read_jsonl(write_dataset(settings))
    variants = [row for row in rows if row["source"] == "variant"]
    own = [row for row in rows if row["source"] == "user"]
    assert variants and {row["split"] for row in variants} == {"train"}
    assert {row["schema_id"] for row in variants} <= {row["schema_id"] for row in own if row["split"] == "train"}
    queries = [row["query"] for row in rows]
    assert len(set(queries)) == len(queries)
    assert all(row["accepted"] is None for row in variants)
