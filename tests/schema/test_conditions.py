"""Conditions as alternatives: the same verdicts, and no condition is left that has such a form."""

import itertools

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.schema.conditions import rewrite_conditions
from schema_student.schema.query_dsl import build_schema, operator_catalog
from schema_student.schema.structure import place_nodes

KINDS = {"oneOf": [{"const": "a"}, {"const": "b"}, {"enum": ["c", 1]}]}
OBJECT = {"type": "object", "properties": {"kind": KINDS, "v": {}}}
IS_A = {"properties": {"kind": {"const": "a"}}}
REWRITTEN = {
    "a value of a required property": {**OBJECT, "required": ["kind"], "if": IS_A, "then": {"required": ["v"]}},
    "a value of an optional one": {**OBJECT, "if": IS_A, "then": {"required": ["v"]}, "else": {"maxProperties": 1}},
    "a value that the test requires": {**OBJECT, "if": {**IS_A, "required": ["kind"]}, "else": {"required": ["v"]}},
    "guards of an allOf": {
        **OBJECT,
        "allOf": [
            {"if": IS_A, "then": {"properties": {"v": {"type": "integer"}}}},
            {"if": {"properties": {"kind": {"enum": ["a", "b"]}}}, "then": {"properties": {"v": {"minimum": 2}}}},
            {"if": {"properties": {"kind": {"enum": [1]}}}, "else": {"required": ["kind"]}},
            {"required": ["v"]},
        ],
    },
    "a type": {"if": {"type": ["array", "number"]}, "then": {"minItems": 1, "maximum": 1}, "else": {"maxLength": 1}},
    "presence": {
        **OBJECT,
        "if": {"required": ["v", "kind"]},
        "then": {"maxProperties": 2},
        "else": {"maxProperties": 1},
    },
    "dependentRequired": {**OBJECT, "dependentRequired": {"v": ["kind"]}},
    "dependentSchemas": {**OBJECT, "dependentSchemas": {"v": {"properties": {"v": {"type": "string"}}}}},
    "always": {"if": True, "then": {"type": "string"}},
    "inside": {"type": "array", "items": {**OBJECT, "if": IS_A, "then": {"required": ["v"]}}},
    "by a reference": {"$defs": {"x": {**OBJECT, "if": IS_A, "then": {"required": ["v"]}}}, "$ref": "#/$defs/x"},
    "a condition in a condition": {
        **OBJECT,
        "if": IS_A,
        "then": {**OBJECT, "if": {"required": ["v"]}, "then": {"properties": {"v": {"type": "null"}}}},
    },
}
LEFT = {
    "a text of any kind": {
        **OBJECT, "properties": {"kind": {"type": "string"}}, "if": IS_A, "then": {"required": ["v"]},
    },
    "two properties": {
        **OBJECT, "if": {"properties": {"kind": {"const": "a"}, "v": {"const": 1}}}, "then": {"required": ["kind"]},
    },
    "numbers that are not whole": {"if": {"type": "integer"}, "else": {"minimum": 3}},
    "an object or anything else": {"properties": {"kind": KINDS}, "if": IS_A, "then": {"required": ["v"]}},
}  # fmt: skip
PARTS = [None, True, 0, 1, 2, 2.5, "", "a", "bb", [], [1], {}]
OBJECTS = [
    {**({} if kind is PARTS else {"kind": kind}), **({} if v is PARTS else {"v": v})}
    for kind, v in itertools.product([PARTS, "a", "b", "c", 1, True, "z"], [PARTS, *PARTS])
]


def has_conditions(schema):
    return any({"if", "dependentRequired", "dependentSchemas"} & node.keys() for _, node in place_nodes(schema))


@pytest.mark.parametrize("schema", [*REWRITTEN.values(), *LEFT.values()], ids=[*REWRITTEN, *LEFT])
def test_the_rewritten_schema_has_the_same_verdicts(schema):
    before, after = (jsonschema_rs.validator_for(each) for each in (schema, rewrite_conditions(schema)))
    values = [*PARTS, *OBJECTS, *([each] for each in OBJECTS)]
    assert [before.is_valid(each) for each in values] == [after.is_valid(each) for each in values]
    assert len({before.is_valid(each) for each in values}) == 2


@pytest.mark.parametrize("schema", REWRITTEN.values(), ids=REWRITTEN)
def test_no_condition_is_left_that_has_such_a_form(schema):
    assert not has_conditions(rewrite_conditions(schema))


@pytest.mark.parametrize("schema", LEFT.values(), ids=LEFT)
def test_what_has_no_such_form_stays(schema):
    assert rewrite_conditions(schema) == schema


def test_names_and_constants_that_read_like_conditions_are_not_touched():
    schema = {"properties": {"if": {"type": "array"}, "then": {}}, "const": {"if": True, "then": {"a": 1}}}
    assert rewrite_conditions(schema) == schema


@given(
    st.lists(
        st.sampled_from([each for each in (*REWRITTEN.values(), *LEFT.values()) if "$ref" not in each]),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(OBJECTS),
)
def test_conditions_together_mean_what_they_mean(schemas, value):
    schema = {"allOf": schemas}
    before, after = (jsonschema_rs.validator_for(each) for each in (schema, rewrite_conditions(schema)))
    assert before.is_valid(value) == after.is_valid(value)


def test_a_query_schema_has_none_left():
    schema = build_schema(SPEC, [{**each, "canonical": each["const"]} for each in operator_catalog()])
    assert has_conditions(schema) and not has_conditions(rewrite_conditions(schema))


SPEC = {
    "domain": "d",
    "description": "d",
    "noun": {},
    "fields": [
        {"const": "kind", "description": "k", "type": "enum", "enum": [{"const": "x", "description": "x"}]},
        {"const": "day", "description": "d", "type": "date"},
    ],
}
