"""What parse_strict must take for JSON, and what not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_examples import JSON_VALUES

from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.parsing import MAX_DEPTH, parse_strict

SURROGATE = chr(0xD800)


@given(JSON_VALUES)
def test_what_json_writes_is_read_back(value):
    assert parse_strict(json.dumps(value)) == (value, None)
    assert parse_strict(json.dumps(value, ensure_ascii=False)) == (value, None)


@given(st.text())
def test_any_text_is_parsed_or_refused_with_a_reason(text):
    value, error = parse_strict(text)
    assert value is None or error is None
    assert error is None or error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("NaN", "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ("1e999", "number out of range: 1e999"),
        ("9" * 5000, "a number of more than 4300 digits"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', 'duplicate key "c"'),
        ('"\\ud800"', "lone surrogate"),
        ('{"\\udc00\\ud800": 1}', "lone surrogate"),
        (f'"{SURROGATE}"', "lone surrogate"),
        ('{"a": 1} and', "Extra data"),
        ("{'a': 1}", "double quotes"),
        ("\ufeff1", "Expecting value"),
        ("\u00a01", "Expecting value"),
        ('"\t"', "Invalid control character"),
        ("01", "Extra data"),
        ("[1,]", "Expecting value"),
        ('{"a": 1', "Expecting ',' delimiter"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper than 200"),
        ("[" * 50_000 + "]" * 50_000, "nested deeper than 200"),
        ('{"a":' * 50_000, "nested deeper than 200"),
    ],
)
def test_what_rfc_8259_or_its_limits_refuse_is_not_json(text, reason):
    value, error = parse_strict(text)
    assert value is None
    assert reason in error
    assert judge(text, compile_schema({})).rank == 0


@pytest.mark.parametrize(
    "text",
    [
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '"' + "[{" * 500 + '"',
        "[" + "[]," * 500 + "[]]",
        '"\\ud83d\\ude00"',
        '"\\"[["',
    ],
)
def test_brackets_in_strings_wide_arrays_and_surrogate_pairs_are_json(text):
    assert parse_strict(text)[1] is None
