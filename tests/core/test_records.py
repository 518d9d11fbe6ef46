"""Typed rows: fields in their order, what is extra kept, what is missing named by its line."""

import dataclasses
import json
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_jsonl
from schema_student.core.records import (
    CorpusRow,
    DatasetRow,
    EvaluationRow,
    MarginRow,
    Pair,
    Record,
    name_rows,
    prompt_key,
    read_rows,
    write_rows,
)

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
    assert prompt_key(row) == ("train", "s", "d", "q")
    assert dataclasses.replace(row, ast_json=None).target is None
    tools = [{"name": "f"}]
    assert Pair(**PAIR, tools=tools).context == {"tools": tools, "chat_template_kwargs": None}
    with pytest.raises(UserError, match=r"^row: this row has no prompt, chosen$"):
        Pair.from_json({"rejected": "b", "schema_id": "s"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": 3}, "prompt must be list or str, not int"),
        ({"chosen": None}, "chosen must be str, not NoneType"),
        ({"rejected_end": "3"}, "rejected_end must be NoneType or int, not str"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_line(tmp_path, changes, said):
    path = tmp_path / "dpo_pairs.jsonl"
    write_jsonl(path, [PAIR, {**PAIR, **changes}])
    with pytest.raises(UserError, match=f":2: {said}$"):
        read_rows(path, Pair)


def test_a_whole_number_is_a_number(tmp_path):
    numbers = dict.fromkeys("step n mean std min p10 median p90 max pos_frac".split(), 1)
    write_jsonl(tmp_path / "margins.jsonl", [numbers])
    assert read_rows(tmp_path / "margins.jsonl", MarginRow)[0].mean == 1


def test_a_row_is_named_by_its_origin_or_else_by_its_line():
    rows = [Pair(**PAIR, origin="data.jsonl:7"), Pair(**PAIR)]
    assert name_rows(rows, Path("o/dpo_pairs.jsonl")) == {"data.jsonl:7": rows[0], "dpo_pairs.jsonl:2": rows[1]}


UNWRITTEN = {  # fields that are not written where nothing is known
    "DomainSpec": {"operators"},
    "CorpusRow": {"tools", "chat_template_kwargs", "origin"},
    "Pair": {*"chosen_rank rejected_rank rejected_end chosen_source tools chat_template_kwargs origin".split()},
    "MarginRow": {"npy", "signs"},
    "EvaluationRow": {"mask_changes", "perturbed", "original_query"},
}


NOUN = {"en": "records", "fr": "fiches"}
FALSE = "parsed schema_valid exact_match semantic_match_target fences_stripped truncated too_long read".split()
LEFT_OUT = {  # what is written for fields that are left out, but null
    "DomainSpec": {"noun": NOUN, "source_prompt": ""},
    "BuiltSchema": {"noun": NOUN, "description": "", "fields": [], "example_queries": [], "schema_json": ""},
    "DatasetRow": {"domain": "", "operators": []},
    "CorpusRow": {"domain": ""},
    "Pair": {"why": "", "source": "", "split": "train"},
    "MarginRow": {"epoch": 0.0, "sample": []},
    "EvaluationRow": {
        **dict.fromkeys(FALSE, False),
        **{"prompt_text": "", "violations": [], "parts": [], "tokens": 0, "seconds": 0.0, "least_sure": []},
    },
}


@pytest.mark.parametrize("kind", Record.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_field_that_is_left_out_has_a_value_of_its_type_and_is_written_but_for_some(kind):
    fields = [each for each in dataclasses.fields(kind) if each.name != "extra"]
    required = {each.name: "{}" for each in fields if {each.default, each.default_factory} == {dataclasses.MISSING}}
    row = kind(**required)
    for name, hint in get_type_hints(kind).items():
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        types = tuple(get_origin(option) or option for option in options)
        assert name in required or Any in types or isinstance(getattr(row, name), types), name
    assert {each.name for each in fields} - row.as_json().keys() == UNWRITTEN.get(kind.__name__, set())
    written = {name: value for name, value in row.as_json().items() if value is not None and name not in required}
    assert written == LEFT_OUT.get(kind.__name__, {})
