"""Typed rows: fields in their order, what is extra kept, what is missing named by its line."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_jsonl
from schema_student.core.records import CorpusRow, DatasetRow, EvaluationRow, Pair, Record, read_rows, write_rows

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b", "schema_id": "s"}


@given(st.dictionaries(st.text(min_size=1), st.none() | st.integers() | st.text() | st.lists(st.booleans())))
def test_what_is_no_field_is_kept_and_written_back_last(more):
    row = {**PAIR, **{f"x{name}": value for name, value in more.items()}}
    written = Pair.from_json(row).as_json()
    assert {name: value for name, value in written.items() if name in row} == row
    assert list(written)[-len(more) :] == [f"x{name}" for name in more] or not more


def test_fields_are_written_in_their_order_and_optional_ones_only_where_they_are_known():
    assert list(Pair(**PAIR).as_json()) == ["prompt", "chosen", "rejected", "schema_id", "why", "source", "split"]
    ranked = Pair(**PAIR, split="validation", source="greedy", rejected_rank=3, chosen_rank=5, why="")
    names = ["prompt", "chosen", "rejected", "schema_id", "chosen_rank", "rejected_rank", "why", "source", "split"]
    assert list(ranked.as_json()) == names
    assert (
        "teacher_verdict"
        in EvaluationRow(schema_id="s", query="q", split="test_seen", current_date="d", raw_output="", rank=0).as_json()
    )  # null says that it is not known


def test_rows_read_back_as_written_however_their_keys_are_ordered(tmp_path):
    rows = [
        CorpusRow(**{"schema_id": "s", "prompt": f"p{i}", "completion": "c", "is_valid": True, "split": "train"})
        for i in range(3)
    ]
    write_rows(tmp_path / "d_04_training_corpus.jsonl", rows)
    assert read_rows(tmp_path / "d_04_training_corpus.jsonl", CorpusRow) == rows
    turned = [dict(reversed(row.as_json().items())) for row in rows]
    write_jsonl(tmp_path / "turned.jsonl", turned)
    assert read_rows(tmp_path / "turned.jsonl", CorpusRow) == rows


def test_a_missing_field_is_named_with_file_line_and_script(tmp_path):
    path = tmp_path / "dpo_pairs.jsonl"
    path.write_text(json.dumps(PAIR) + "\n\n" + json.dumps({"prompt": "p", "chosen": "a"}) + "\n")
    with pytest.raises(UserError) as caught:
        read_rows(path, Pair)
    assert f"{path}:3: this row has no rejected, schema_id; scripts/build_alignment_pairs.py makes it" in str(
        caught.value
    )


@pytest.mark.parametrize("kind", Record.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_row_is_frozen(kind):
    required = {
        field.name: "{}"
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    row = kind.from_json(required)
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.extra = {}


def test_the_json_within_a_row_is_read_where_it_is_asked_for():
    row = DatasetRow(
        schema_id="s",
        schema_json='{"type": "object"}',
        query="q",
        current_date="d",
        ast_json='{"n": 1}',
        is_valid=True,
        split="train",
    )
    assert row.schema == {"type": "object"} and row.target == {"n": 1}
