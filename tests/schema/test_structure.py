"""What a reference names, whatever way it is written; nothing is fetched."""

import pytest

from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.structure import resolve

UNIT = {"enum": ["kg", "lb"]}
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def unit(ref, **root):
    """What the property `unit` of a schema names."""
    schema = {**root, "properties": {"unit": {"$ref": ref}}}
    found = resolve(schema["properties"]["unit"], schema)
    validator = compile_schema(schema).validator
    assert validator.is_valid({"unit": "kg"}) and not validator.is_valid({"unit": "m"})
    return found["enum"]


@pytest.mark.parametrize(
    ("ref", "root"),
    [
        ("#/$defs/a%20b%3Cc%3E", {"$defs": {"a b<c>": UNIT}}),
        ("#/$defs/a~1b~0c", {"$defs": {"a/b~c": UNIT}}),
        ("#/x-parts/1", {"x-parts": [{}, UNIT]}),
        ("#unit", {"$schema": DRAFT_7, "definitions": {"Unit": {"$id": "#unit", **UNIT}}}),
        ("#unit", {"$schema": DRAFT_4, "definitions": {"Unit": {"id": "#unit", **UNIT}}}),
        ("#unit", {"$defs": {"outer": {"properties": {"x": {"items": {"$anchor": "unit", **UNIT}}}}}}),
        ("order.json#/$defs/Unit", {"$id": "https://example.com/s/order.json", "$defs": {"Unit": UNIT}}),
        ("/s/order.json#/$defs/Unit", {"$id": "https://example.com/s/order.json", "$defs": {"Unit": UNIT}}),
        ("unit.json", {"$id": "https://example.com/s/order.json", "$defs": {"Unit": {"$id": "unit.json", **UNIT}}}),
        ("unit.json", {"$defs": {"Unit": {"$id": "unit.json", **UNIT}}}),
    ],
)
def test_references_are_followed_as_the_validator_follows_them(ref, root):
    assert unit(ref, **root) == ["kg", "lb"]


@pytest.mark.parametrize("draft", [DRAFT_4, DRAFT_7, "https://json-schema.org/draft/2020-12/schema"])
@pytest.mark.parametrize(
    "name", ["Page<Order>", "Order Details", "Straße", "Page`1", "A|B", "50%", "{x}", 'a"b', "a#b"]
)
def test_names_that_are_not_encoded_are_encoded(draft, name):
    assert unit(f"#/definitions/{name}", **{"$schema": draft}, definitions={name: UNIT}) == ["kg", "lb"]


def test_a_reference_relative_to_a_part_with_an_id_of_its_own_is_followed_there():
    inner = {"$id": "parts/inner.json", "properties": {"u": {"$ref": "#/$defs/U"}}, "$defs": {"U": UNIT}}
    schema = {"$id": "https://example.com/outer.json", "properties": {"in": inner}, "$defs": {"U": {"type": "null"}}}
    assert resolve(inner["properties"]["u"], schema) == UNIT


def test_constants_that_look_like_references_are_left_alone():
    assert compile_schema({"const": {"$ref": "a b"}}).validator.is_valid({"$ref": "a b"})


def test_before_2019_only_annotations_beside_a_reference_count():
    node = {"$ref": "#/definitions/n", "minimum": 2, "default": 3}
    schema = {"properties": {"n": node}, "definitions": {"n": {"type": "integer"}}}
    assert resolve(node, schema) == {"type": "integer", "minimum": 2, "default": 3}
    assert resolve(node, {**schema, "$schema": DRAFT_7}) == {"type": "integer", "default": 3}


def test_keywords_beside_a_reference_that_speak_of_the_same_thing_hold_together_with_it():
    node = {"$ref": "#/$defs/a", "additionalProperties": False}
    schema = {"properties": {"x": node}, "$defs": {"a": {"properties": {"b": {}}}}}
    assert resolve(node, schema) == {"additionalProperties": False, "allOf": [{"properties": {"b": {}}}]}


def test_references_that_only_name_each_other_allow_anything():
    schema = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    assert resolve(schema, schema) is True


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            {"$ref": "https://example.com/lint.json"},
            '/properties/lint/\\$ref: "https://example.com/lint.json" is not in',
        ),
        ({"$ref": "#/$defs/Lint"}, '/properties/lint/\\$ref: "#/\\$defs/Lint" points at nothing'),
        ({"$ref": "#lint"}, '/properties/lint/\\$ref: "#lint" points at nothing'),
        ({"$dynamicRef": "#lint"}, '/properties/lint/\\$dynamicRef: "#lint" points at nothing'),
        ({"type": "strin"}, "/properties/lint/type"),
    ],
)
def test_a_schema_that_refers_to_itself_is_not_blamed_for_another_fault(fault, message):
    with pytest.raises(SchemaError, match=message):
        compile_schema({"properties": {"child": {"$ref": "#"}, "lint": fault}})


def test_an_id_that_is_no_uri_is_refused():
    with pytest.raises(SchemaError, match="Invalid URI"):
        compile_schema({"$id": "http://[x", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {}}})
