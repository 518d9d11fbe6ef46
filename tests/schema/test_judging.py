"""What judge must say of a text: rank, places and keywords, on the query DSL and on hostile text."""

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_examples import JSON_VALUES, QUERY_SCHEMA, condition, query

from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.schema.judging import find_violations, judge

QUERY = compile_schema(QUERY_SCHEMA)


def found(value, schema=QUERY):
    return [(v.path, v.keyword) for v in judge(json.dumps(value), schema).violations]


def test_fences_are_stripped_only_on_demand_and_told():
    schema = compile_schema({"type": "object"})
    text = '```json\n{"a": 1}\n```\n'
    assert judge(text, schema).rank == 0
    verdict = judge(text, schema, strip_fences=True)
    assert (verdict.rank, verdict.fences_stripped) == (4, True)
    assert not judge('{"a": 1}', schema, strip_fences=True).fences_stripped
    assert judge("Here it is:\n" + text, schema, strip_fences=True).rank == 0


@pytest.mark.parametrize(
    ("value", "rank", "violations"),
    [
        ([], 1, [("", "type")]),
        ({"prompt": "p"}, 2, [("", "required")]),
        ({"prompt": "p", "note": 1, "steps": []}, 2, [("/steps", "minItems"), ("", "additionalProperties")]),
        (query() | {"refusal": {"reason": "r", "suggestion": "s"}}, 2, [("/steps", "falseSchema")]),
        (query(condition("size", "is", "x")), 3, [("/steps/0/conditions/0/field", "oneOf")]),
        (query(condition("color", "is", "green")), 3, [("/steps/0/conditions/0/value", "oneOf")]),
        (query(condition("price", "over", "5")), 1, [("/steps/0/conditions/0/value", "type")]),
        (query(condition("price", "among", 5)), 1, [("/steps/0/conditions/0/value", "type")]),
        (query(condition("day", "is", "2024-02-30")), 3, [("/steps/0/conditions/0/value", "format")]),
        (query(condition("day", "is", ["2024-02-29"])), 1, [("/steps/0/conditions/0/value", "type")]),
        (
            query(condition("price", "is", 5), timeframe={"start": "2024-03-02", "end": "2024-03-01"}),
            3,
            [("/timeframe/end", "x-rules/date_order")],
        ),
        (query(condition("price", "is", 5), timeframe={"start": "2024-03-01"}), 2, [("/timeframe", "required")]),
    ],
)
def test_each_fault_of_a_query_has_its_rank_place_and_keyword(value, rank, violations):
    verdict = judge(json.dumps(value), QUERY)
    assert set(violations) <= set(found(value))
    assert verdict.rank == rank
    assert not verdict.schema_valid


@pytest.mark.parametrize(
    "value",
    [
        query(condition("color", "is", "red"), timeframe={"start": "2024-03-01", "end": "2024-03-01"}),
        query(condition("color", "among", ["red", "blue"]), condition("day", "over", "2024-02-29")),
        {"prompt": "p", "refusal": {"reason": "r", "suggestion": "s"}},
    ],
)
def test_a_valid_query_has_rank_4_and_5_once_it_is_what_was_meant(value):
    verdict = judge(json.dumps(value), QUERY)
    assert verdict.violations == ()
    ranks = [grade(json.dumps(value), QUERY, target).rank for target in (None, value)]
    assert (verdict.rank, *ranks) == (4, 4, 5)


def test_a_target_lifts_no_invalid_answer():
    assert grade("{}", QUERY, {}).rank == 2
    assert grade("{", QUERY, {}).rank == 0


def test_constants_in_a_union_are_told_as_one_list():
    (violation,) = judge(json.dumps(query(condition("size", "is", "x"))), QUERY).violations
    assert violation.message == '"size" is not one of "color", "price", "day"'


def test_types_in_a_union_are_told_as_one_list():
    schema = compile_schema({"anyOf": [{"type": "string"}, {"type": ["number", "boolean"]}, {"type": "array"}]})
    (violation,) = judge("null", schema).violations
    assert (violation.keyword, violation.rank) == ("type", 1)
    assert violation.message == "null is not of any of the types string, boolean, number, array"


def test_a_tagged_union_is_told_by_the_alternative_of_its_tag():
    circle = {"properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}, "required": ["kind", "r"]}
    label = {"properties": {"kind": {"const": "label"}}, "required": ["kind"], "additionalProperties": False}
    schema = compile_schema({"type": "object", "oneOf": [circle, label]})
    assert found({"kind": "circle"}, schema) == [("", "required")]
    assert found({"kind": "circle", "r": "1"}, schema) == [("/r", "type")]
    assert found({"kind": "label", "text": 1}, schema) == [("", "additionalProperties")]


def test_more_than_one_alternative_of_one_of_is_a_violation():
    schema = compile_schema({"oneOf": [{"type": "integer"}, {"minimum": 2}]})
    assert found(3, schema) == [("", "oneOf")]


def test_paths_are_json_pointers():
    schema = compile_schema({"properties": {"a/b": {"properties": {"m~n": {"type": "integer"}}}}})
    assert found({"a/b": {"m~n": "x"}}, schema) == [("/a~1b/m~0n", "type")]


def test_long_messages_are_cut():
    schema = compile_schema({"type": "integer"})
    assert len(judge(json.dumps("x" * 10_000), schema).violations[0].message) < 320


SCHEMAS = st.sampled_from([
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "array", "items": {"enum": [1, "a", None]}, "minItems": 1},
    {"anyOf": [{"type": "string", "minLength": 2}, {"type": "array", "items": {"type": "boolean"}}]},
    {"type": ["number", "null"], "exclusiveMinimum": 0},
    {"oneOf": [{"const": 1}, {"const": "x"}]},
])  # fmt: skip


@given(SCHEMAS, JSON_VALUES)
def test_the_verdict_is_that_of_the_reference_implementation(schema, value):
    verdict = judge(json.dumps(value), compile_schema(schema))
    assert verdict.schema_valid == jsonschema.Draft202012Validator(schema).is_valid(value)
    assert verdict.schema_valid == (verdict.rank == 4) == (verdict.violations == ())
    assert verdict.rank == min((v.rank for v in verdict.violations), default=4)


def test_a_pattern_of_exponential_backtracking_ends():
    schema = compile_schema({"pattern": "^(?=a)(a|a)*$(?<!b)"})
    assert judge(json.dumps("a" * 40 + "b"), schema).rank == 3


def test_date_order_is_left_to_format_where_the_dates_are_none():
    rule = {"rule": "date_order", "path": "", "start": "a", "end": "b"}
    schema = compile_schema({"x-rules": [rule]})
    for value in ({"a": "soon", "b": "2024-01-01"}, {"a": 3, "b": 1}, {"a": "2024-01-01"}, [], "x"):
        assert find_violations(value, schema) == ()
    (late,) = find_violations({"a": "2024-01-02", "b": "2024-01-01T09:00:00Z"}, schema)
    assert (late.path, late.message) == ("/b", 'b "2024-01-01T09:00:00Z" is before a "2024-01-02"')
    zoned = {"a": "2024-01-01T00:00:00+02:00", "b": "2023-12-31T23:00:00Z"}
    assert find_violations(zoned, schema) == () and find_violations({"a": zoned["b"], "b": zoned["a"]}, schema)
    assert find_violations({"a": "2024-01-01", "b": "2024-01-01T00:00:00Z"}, schema) == ()
