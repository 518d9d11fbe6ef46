"""Dynamic references whose target is known become plain ones: verdicts stay, what is said of them gets right."""

import copy
import json
import random

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.schema.compiling import compile_schema
from schema_student.schema.dynamic_references import find_dynamic_keyword, settle_dynamic_references
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations

DRAFT_2019 = "https://json-schema.org/draft/2019-09/schema"
TREE = {
    "$dynamicAnchor": "node",
    "type": "object",
    "properties": {"size": {"type": "integer"}, "children": {"type": "array", "items": {"$dynamicRef": "#node"}}},
    "required": ["size"],
}
RECURSIVE = json.loads(
    json.dumps(TREE)
    .replace('"$dynamicAnchor": "node"', '"$recursiveAnchor": true')
    .replace("dynamicRef", "recursiveRef")
)
RECURSIVE["properties"]["children"]["items"] = {"$recursiveRef": "#"}


def settled(schema):
    schema = copy.deepcopy(schema)
    settle_dynamic_references(schema)
    return schema


@pytest.mark.parametrize("schema", [TREE, {"$schema": DRAFT_2019, **RECURSIVE}])
def test_faults_below_a_dynamic_reference_are_told_by_their_place(schema):
    compiled = compile_schema(schema)
    value = {"size": 1, "children": [{"size": 2}, {"size": 3, "children": [{"size": "4"}]}]}
    assert [(v.path, v.keyword) for v in find_violations(value, compiled)] == [("/children/1/children/0/size", "type")]
    deep = [example_instance(compiled, random.Random(seed)) for seed in range(20)]
    assert any(value.get("children") for value in deep)


def strict(tree, **more):
    """A schema that extends a tree: what the tree's children are comes from here."""
    return {
        "$id": "http://x.test/strict", "$ref": "tree", "unevaluatedProperties": False, **more,
        "$defs": {"tree": {"$id": "tree", **tree}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "target"),
    [
        (strict(TREE, **{"$dynamicAnchor": "node"}), "http://x.test/strict#"),
        (strict(RECURSIVE, **{"$recursiveAnchor": True, "$schema": DRAFT_2019}), "http://x.test/strict#"),
        (strict(TREE), "#node"),
        (strict(RECURSIVE, **{"$schema": DRAFT_2019}), "#"),
    ],
)
def test_what_the_whole_schema_extends_is_found(schema, target):
    compiled = compile_schema(schema)
    assert compiled.schema["$defs"]["tree"]["properties"]["children"]["items"] == {"$ref": target}
    extended = {"size": 1, "children": [{"size": 2, "sise": 3}]}
    assert [v.path for v in find_violations(extended, compiled)] == (["/children/0"] if "strict" in target else [])


def test_what_depends_on_the_way_is_left_and_said_by_its_keyword():
    parts = {name: {"$id": f"http://x.test/{name}", "$dynamicAnchor": "n", "$dynamicRef": "#n"} for name in "ab"}
    assert settled({"$defs": parts}) == {"$defs": parts}
    assert (
        find_dynamic_keyword({"$defs": parts}) == "$dynamicRef"
        and find_dynamic_keyword(TREE | {"properties": {}}) == ""
    )


def test_a_reference_beside_a_plain_one_is_kept_as_a_conjunction():
    node = {"$ref": "#/$defs/a", "$dynamicRef": "#/$defs/b"}
    schema = settled({"items": node, "$defs": {"a": {"minimum": 1}, "b": {"maximum": 2}}})
    assert schema["items"] == {"$ref": "#/$defs/a", "allOf": [{"$ref": "#/$defs/b"}]}


def test_constants_and_properties_are_no_references():
    schema = {"const": {"$dynamicRef": "#a"}, "properties": {"$dynamicRef": {"type": "string"}}}
    assert settled(schema) == schema and find_dynamic_keyword(schema) == ""


VALUES = [
    *({}, {"n": 1}, {"n": "x"}, {"n": {}}, {"n": {"n": 1}}, {"n": {"n": "x"}}, {"n": {"n": {"n": 1}}}),
    *({"n": {"n": {"n": None}}}, 1, "x"),
]  # fmt: skip
KINDS = st.sampled_from(["object", "integer", "string"]) | st.just(["object", "integer"])


@st.composite
def dynamic_schemas(draw):
    """Two or three schema resources that may have one anchor, and that refer to it and to each other."""
    ids = ["root", "a", "b"][: draw(st.integers(2, 3))]
    refs = [{"$dynamicRef": "#n"}, {"$dynamicRef": "#/properties/n"}, *({"$ref": name} for name in ids)]
    made = {}
    for name in ids:
        plain = draw(st.sampled_from(["$dynamicAnchor", "$anchor", ""]))
        made[name] = {"$id": f"http://x.test/{name}", "type": draw(KINDS), **({plain: "n"} if plain else {})}
        kept = refs if plain else refs[1:]
        made[name]["properties"] = {"n": draw(st.sampled_from(kept[:1] + kept[2:]) | st.just({"type": "null"}))}
    return made["root"] | {"$defs": {name: made[name] for name in ids[1:]}}


@given(dynamic_schemas())
def test_verdicts_stay_as_they_are(schema):
    changed = settled(schema)
    validators = [jsonschema_rs.validator_for(each, offline=True) for each in (schema, changed)]
    for value in VALUES:
        assert validators[0].is_valid(value) == validators[1].is_valid(value), (value, changed)
