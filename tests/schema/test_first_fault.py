"""Where an answer first goes wrong: the text up to there, for every kind of fault."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.schema.compiling import compile_schema
from schema_student.schema.first_fault import end_of_first_fault
from schema_student.schema.grading import grade

SCHEMA = {
    "type": "object",
    "properties": {
        "a/b": {"type": "integer"},
        "unit": {"enum": ["km", "mile"]},
        "legs": {"type": "array", "items": {"type": "object", "properties": {"to": {"type": "string"}}}},
        "place": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}},
    },
    "required": ["a/b", "unit"],
    "additionalProperties": False,
}
RIGHT = {"a/b": 3, "unit": "km", "legs": [{"to": "Oslo"}, {"to": "Rome"}], "place": {"x": 1, "y": 2}}
DSL = {"x-dsl": "query"}
QUERY = {"prompt": "hot", "steps": [{"conditions": [{"field": "heat", "operator": "gt", "value": "3"}], "name": "s"}]}


def until_fault(text, schema, right):
    return text[: end_of_first_fault(text, grade(text, compile_schema(schema), right), right)]


LEGS = '{"a/b":3,"unit":"km","legs":[{"to":"Oslo"},{"to":"Rome"}],"place":'


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ('{"a/b":4,"unit":"km"}', '{"a/b":4'),
        ('{ "unit" : "km", "a/b": 3.5, "place": {}}', '{ "unit" : "km", "a/b": 3.5'),
        ('{"a/b":3,"unit":"league","legs":[]}', '{"a/b":3,"unit":"league"'),
        ('{"a/b":3,"unit":"km","more":1,"legs":[]}', '{"a/b":3,"unit":"km","more":1'),
        ('{"a/b":3,"unit":"km","legs":[{"to":"Oslo"},{"to":2}]}', '{"a/b":3,"unit":"km","legs":[{"to":"Oslo"},{"to":2'),
        (LEGS + '{"x":1,"y":5}}', LEGS + '{"x":1,"y":5'),
        (LEGS + '{"x":1}} ', LEGS + '{"x":1}'),
        ('{"a/b":3}', '{"a/b":3}'),
        ("[3]", "[3]"),
        ('{"a/b":3,"unit":km,"legs":[]}', '{"a/b":3,"unit":k'),
        ('{"a/b":3,"unit":"km"} and more', '{"a/b":3,"unit":"km"} a'),
        ("", ""),
        ('{"a/b":3,"a/b":3}', '{"a/b":3,"a/b":3}'),
    ],
)
def test_a_text_is_cut_after_what_is_wrong_first(text, until):
    assert until_fault(text, SCHEMA, RIGHT) == until


def test_of_a_wrong_condition_the_first_value_that_is_otherwise_is_wrong():
    def written(**changes):
        step = {**QUERY["steps"][0], "conditions": [{**QUERY["steps"][0]["conditions"][0], **changes}]}
        return json.dumps({**QUERY, "steps": [step]}, separators=(",", ":"))

    assert until_fault(written(operator="lt"), DSL, QUERY).endswith('"operator":"lt"')
    assert until_fault(written(value="4"), DSL, QUERY).endswith('"value":"4"')
    assert until_fault(json.dumps({**QUERY, "prompt": "cold"}), DSL, QUERY) == '{"prompt": "cold"'
    missing = json.dumps({**QUERY, "steps": [{"conditions": [], "name": "s"}]})
    assert until_fault(missing, DSL, QUERY).endswith('"conditions": []')


def test_a_fenced_answer_and_one_whose_place_is_unknown_are_wrong_as_a_whole():
    text = '```json\n{"a/b":4,"unit":"km"}\n```'
    graded = grade(text, compile_schema(SCHEMA), RIGHT, strip_fences=True)
    assert end_of_first_fault(text, graded, RIGHT) == len(text)
    text = '{"a/b":4,"unit":"km"}'
    graded = grade(text, compile_schema(SCHEMA), None, {"a/b": [3], "unit": ["km"]})
    assert end_of_first_fault(text, graded, None) == len(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, VALUES, st.sampled_from([None, 1]))
def test_any_two_values_have_a_place_where_they_part_unless_they_are_the_same(value, right, indent):
    text = json.dumps(value, indent=indent)
    graded = grade(text, compile_schema({}), right)
    end = end_of_first_fault(text, graded, right)
    assert 0 < end <= len(text)
    if graded.right:
        assert end == len(text)
