"""--requests: rows of people with a schema of their own or the run's, with or without an answer; faults by line."""

from __future__ import annotations

import json

import pytest

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_jsonl
from schema_student.core.records import DatasetRow
from schema_student.preference.open_requests import read_open_requests
from schema_student.schema.prompts import render_row_prompt

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def row_of_run(day):
    return DatasetRow(
        schema_id="s",
        schema_json=json.dumps(SCHEMA),
        query="three",
        current_date=day,
        ast_json=None,
        is_valid=True,
        split="train",
    )


RUN = [row_of_run("2026-01-31"), row_of_run("2026-02-01")]


def read(path, *rows):
    write_jsonl(path, rows)
    return read_open_requests(path, RUN, "compact")


def test_a_request_has_a_schema_of_its_own_or_one_of_the_runs(tmp_path):
    own, named = read(
        tmp_path / "asked.jsonl",
        {"query": "two", "schema": {"type": "string"}, "current_date": "2025-05-05"},
        {"query": "two", "schema_id": "s"},
    )
    assert own.row.schema["type"] == "string" and own.row.target is None and "Date: 2025-05-05" in own.prompt
    assert named.row.schema == SCHEMA and named.row.schema_id == "s" and own.row.schema_id not in ("", "s")
    assert {own.row.split, named.row.split} == {"alignment"}


def test_a_request_without_a_day_has_one_of_the_runs_and_always_the_same(tmp_path):
    rows = [{"query": f"number {i}", "schema_id": "s"} for i in range(12)]
    first, second = (read(tmp_path / "asked.jsonl", *order) for order in (rows, rows[::-1]))
    days = {request.row.query: request.row.current_date for request in first}
    assert set(days.values()) == {"2026-01-31", "2026-02-01"}
    assert days == {request.row.query: request.row.current_date for request in second}


def test_an_answer_that_is_known_is_the_target(tmp_path):
    (known,) = read(
        tmp_path / "asked.jsonl", {"query": "q", "schema_id": "s", "answer": {"n": 2}, "accepted": {"n": [2, 3]}}
    )
    assert known.row == DatasetRow(
        schema_id="s",
        schema_json=json.dumps(SCHEMA),
        query="q",
        current_date=known.row.current_date,
        ast_json='{"n": 2}',
        is_valid=True,
        split="alignment",
        accepted={"n": [2, 3]},
        source="request",
    )
    assert known.prompt == render_row_prompt(known.row, "compact")


def test_schemas_of_ones_own_are_told_apart_and_may_be_named(tmp_path):
    schemas = [{"type": "string"}, {"type": "integer"}, {"type": "string"}]
    rows = [{"query": "q", "schema": schema} for schema in schemas]
    names = [each.row.schema_id for each in read(tmp_path / "asked.jsonl", *rows, {**rows[0], "schema_id": "mine"})]
    assert names[0] == names[2] != names[1] and names[3] == "mine"
    write_jsonl(tmp_path / "asked.jsonl", rows[:1])
    (alone,) = read_open_requests(tmp_path / "asked.jsonl", [], "compact")
    assert alone.row.current_date == ""  # of a run without days


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"schema_id": "s"}, "no query in it; a row is {query, schema | schema_id"),
        ({"query": 3, "schema_id": "s"}, "no query in it"),
        ({"query": "q"}, "no schema in it, and the run has none called ''"),
        ({"query": "q", "schema_id": "t"}, "the run has none called 't'"),
        ({"query": "q", "schema": {"type": "no such"}}, "schema"),
        ({"query": "q", "schema_id": "s", "answer": {"n": "2"}}, "its answer is not valid: /n: "),
        ({"query": "q", "schema_id": "s", "answer": []}, "its answer is not valid: /: "),
        ({"query": "q", "schema_id": "s", "accepted": [1]}, "accepted must be an object"),
        ({"query": "q", "schema_id": "s", "current_date": "2026-02-30"}, "no day"),
    ],
)
def test_a_faulty_row_is_refused_with_its_file_and_line(tmp_path, row, said):
    with pytest.raises(UserError) as caught:
        read(tmp_path / "asked.jsonl", {"query": "q", "schema_id": "s"}, row)
    assert str(caught.value).startswith(f"{tmp_path / 'asked.jsonl'}:2: ") and said in str(caught.value)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no requests; a row is"):
        read(tmp_path / "asked.jsonl")


def test_a_part_of_them_is_evenly_spread(tmp_path):
    read(tmp_path / "asked.jsonl", *({"query": f"q{i}", "schema_id": "s"} for i in range(4)))
    asked = read_open_requests(tmp_path / "asked.jsonl", RUN, "compact", 2)
    assert [request.row.query for request in asked] == ["q0", "q2"]
