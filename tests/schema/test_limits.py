"""Numbers beyond a double and references that only name each other are refused with their place, others are not."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.limits import NUMERIC, find_bad_number, find_cycle
from schema_student.schema.structure import json_pointer, place_nodes

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
PLACES = st.sampled_from([("items",), ("properties", "maximum"), ("$defs", "n"), ("not",), ("anyOf", 0), ("if",)])
COUNTS = [
    keyword for keyword in NUMERIC if keyword.startswith(("min", "max")) and keyword not in ("minimum", "maximum")
]
STEPS = {
    "reference": lambda ref: ref,
    "allOf": lambda ref: {"type": "object", "allOf": [{}, ref]},
    "not": lambda ref: {"not": ref},
    "if": lambda ref: {"if": ref, "then": {"type": "string"}},
    "reference beside others": lambda ref: {**ref, "type": "object"},
}


def put(schema, place):
    """Stand a schema at a place of another one."""
    for key in reversed(place):
        schema = [schema] if isinstance(key, int) else {key: schema}
    return schema


def closed(steps):
    """Definitions of which each asks for the next one, the last one for the first."""
    refs = [{"$ref": f"#/$defs/d{(i + 1) % len(steps)}"} for i in range(len(steps))]
    return {f"d{i}": step(ref) for i, (step, ref) in enumerate(zip(steps, refs, strict=True))}


@given(st.lists(PLACES, max_size=3), st.sampled_from(NUMERIC), st.integers(309, 500))
def test_a_number_beyond_a_double_is_refused_with_its_place_wherever_it_stands(places, keyword, digits):
    path = [key for place in places for key in place]
    signs = (1,) if keyword in COUNTS or keyword == "multipleOf" else (1, -1)
    for sign in signs:
        with pytest.raises(SchemaError) as refused:
            compile_schema(put({keyword: sign * 10**digits}, path), "f.json")
        place = f"f.json: {json_pointer(path)}/{keyword}: a number of {digits + 1} digits is beyond a double"
        assert str(refused.value).startswith(place)


@pytest.mark.parametrize("step", [5e-324, 1e-310, 1e-301])
def test_a_step_that_a_double_cannot_be_told_to_be_a_multiple_of_is_refused(step):
    with pytest.raises(SchemaError, match=r"f.json: /items/multipleOf: \S+ is below 1e-300"):
        compile_schema({"items": {"multipleOf": step}}, "f.json")


@given(st.floats(1e-300, sys.float_info.max) | st.integers(1, 10**308), st.sampled_from(NUMERIC))
def test_each_number_that_a_double_holds_is_taken(number, keyword):
    number = int(number) if keyword in COUNTS else number
    assert compile_schema({keyword: number}).schema == {keyword: number}
    assert compile_schema({"properties": {"n": {"exclusiveMaximum": -number}}})


def test_names_and_constants_are_no_keywords():
    schema = {"properties": {"maximum": {"const": {"maximum": 10**400}}}, "enum": [{"multipleOf": 5e-324}]}
    assert find_bad_number(schema) == ""


@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5))
def test_references_that_only_name_each_other_are_refused_with_their_place(names):
    parts = closed([STEPS[name] for name in names])
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": parts}
    with pytest.raises(SchemaError, match=r"^f.json: (\S+)/\$ref: \"#/\$defs/d\d\" comes back to itself") as refused:
        compile_schema(schema, "f.json")
    referring = {json_pointer(path) for path, node in place_nodes(parts) if "$ref" in node}
    assert str(refused.value).split("/$ref: ")[0].removeprefix("f.json: /$defs") in referring


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=4), st.sampled_from(["items", "properties", "anyOf"]))
def test_recursion_with_a_keyword_between_is_taken(names, keyword):
    between = {
        "items": lambda ref: {"items": ref},
        "properties": lambda ref: {"properties": {"a": ref}},
        "anyOf": lambda ref: {"anyOf": [{"type": "null"}, ref]},
    }[keyword]
    assert find_cycle({"$ref": "#/$defs/d0", "$defs": closed([*(STEPS[name] for name in names), between])}) == ""


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"$ref": "#"}, "/$ref"),
        ({"$schema": DRAFT_7, "$ref": "#", "type": "object"}, "/$ref"),
        ({"$dynamicAnchor": "a", "$dynamicRef": "#a"}, "/$ref"),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#"}, "/$ref"),
        ({"properties": {"x": {"$ref": "#/properties/x"}}}, "/properties/x/$ref"),
        ({"$id": "http://x.test/a", "items": {"$id": "b", "$ref": "b"}}, "/items/$ref"),
    ],
)
def test_however_a_reference_names_itself(schema, place):
    with pytest.raises(SchemaError, match="comes back to itself") as refused:
        compile_schema(schema)
    assert str(refused.value).startswith(f"schema: {place}: ")


def test_before_2019_what_stands_beside_a_reference_asks_for_nothing():
    node = {"$ref": "#/definitions/n", "allOf": [{"$ref": "#"}]}
    assert find_cycle({"$schema": DRAFT_7, **node, "definitions": {"n": {"type": "null"}}}) == ""
    assert find_cycle(
        {**node, "definitions": {"n": {"type": "null"}}}
    ) == '/allOf/0/$ref: "#" comes back to itself ' + ("without a keyword between, so that it says nothing")


@pytest.mark.parametrize("keyword", ["$anchor", "$dynamicAnchor"])
def test_an_anchor_of_two_parts_is_refused_and_of_two_resources_is_not(keyword):
    parts = {"x": {keyword: "a", "type": "integer"}, "y": {"$anchor": "a", "type": "string"}}
    with pytest.raises(SchemaError, match=r'^f.json: /\$defs/.*nchor: "a" is the anchor of /\$defs/. as well'):
        compile_schema({"$ref": "#a", "$defs": parts}, "f.json")
    parts["y"]["$id"] = "y"
    assert compile_schema({"$ref": "#a", "$defs": parts}).validator.is_valid(1)
    assert compile_schema({"properties": {"$anchor": {"const": {"$anchor": "a"}}}, "$anchor": "a"})
