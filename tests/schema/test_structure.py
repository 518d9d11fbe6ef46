"""What a reference names, whatever way it is written; nothing is fetched."""

import pytest

from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.structure import (
    encode_reference,
    encode_references,
    general_pointer,
    in_schema_order,
    list_values,
    place_nodes,
    references_of,
    resolve,
    shape,
)

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


@pytest.mark.parametrize(
    ("beside", "target", "resolved"),
    [
        ({"additionalProperties": False}, {"properties": {"b": {}}}, "together"),
        ({"patternProperties": {}}, {"unevaluatedProperties": False}, "together"),
        ({"minContains": 2}, {"items": {}}, "together"),
        ({"prefixItems": [{}]}, {"unevaluatedItems": False}, "together"),
        ({"additionalItems": {}}, {"maxContains": 2, "contains": {}}, "together"),
        ({"then": {}}, {"if": {}}, "together"),
        ({"else": {}}, {"if": {}}, "together"),
        ({"minimum": 2}, {"minimum": 1}, "together"),
        ({"required": ["b"]}, {"properties": {"b": {}}}, "as one"),
        ({"items": {}}, {"properties": {"b": {}}}, "as one"),
        ({"title": "mine"}, {"title": "its", "type": "null"}, {"title": "mine", "type": "null"}),
        ({"minimum": 2}, True, {"minimum": 2}),
        ({"minimum": 2}, False, False),
        ({}, True, True),
        ({"allOf": [{}], "minimum": 2}, {"minimum": 1}, {"allOf": [{}, {"minimum": 1}], "minimum": 2}),
    ],
)
def test_keywords_beside_a_reference_hold_together_with_it(beside, target, resolved):
    """As one schema, unless they speak of the same thing."""
    node = {"$ref": "#/$defs/a", **beside}
    both = {"together": lambda: {**beside, "allOf": [target]}, "as one": lambda: {**target, **beside}}
    expected = both[resolved]() if isinstance(resolved, str) else resolved
    assert resolve(node, {"properties": {"x": node}, "$defs": {"a": target}}) == expected


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


PLACE = {"properties": {"a": {}, "b": {}}}


@pytest.mark.parametrize(
    ("schema", "value", "ordered"),
    [
        (PLACE, {"c": 1, "b": 2, "a": 3}, "a b c"),
        (PLACE, ["b", "a"], "0 1"),
        ({"properties": {"p": PLACE}}, {"p": {"b": 1, "a": 2}}, "p p/a p/b"),
        ({"additionalProperties": PLACE}, {"p": {"b": 1, "a": 2}}, "p p/a p/b"),
        ({"properties": {"p": {}}, "additionalProperties": PLACE}, {"p": {"b": 1, "a": 2}}, "p p/b p/a"),
        ({"items": PLACE}, [{"b": 1, "a": 2}], "0 0/a 0/b"),
        ({"items": [{}, PLACE]}, [{"b": 1, "a": 2}, {"b": 1, "a": 2}], "0 0/b 0/a 1 1/a 1/b"),
        ({"items": [PLACE]}, [{"b": 1, "a": 2}, {"b": 1, "a": 2}], "0 0/a 0/b 1 1/b 1/a"),
        ({"prefixItems": [{}], "items": PLACE}, [{"b": 1, "a": 2}, {"b": 1, "a": 2}], "0 0/b 0/a 1 1/a 1/b"),
        ({"properties": {"b": {}}, "allOf": [PLACE, {"properties": {"c": {}}}]}, {"c": 1, "a": 2, "b": 3}, "b a c"),
        ({"allOf": [{"$ref": "#"}, PLACE]}, {"b": 1, "a": 2}, "a b"),
        ({"$ref": "#/$defs/p", "$defs": {"p": PLACE}}, {"b": 1, "a": 2}, "a b"),
        (
            {"oneOf": [{"properties": {"a": {}}}, True, {"$ref": "#/$defs/p"}], "$defs": {"p": PLACE}},
            {"b": 1, "a": 2},
            "a b",
        ),
        (
            {"anyOf": [{"properties": {"b": {"const": 9}, "a": {}}}, {"properties": {"a": {}, "b": {"const": 1}}}]},
            {"b": 1, "a": 2},
            "a b",
        ),
        ({"anyOf": [PLACE, {"type": "string"}, {"items": PLACE}]}, [{"b": 1, "a": 2}], "0 0/a 0/b"),
        ({"anyOf": [{"type": "string"}, {"prefixItems": [PLACE]}]}, [{"b": 1, "a": 2}], "0 0/a 0/b"),
        ({"anyOf": [{"items": {}}, {"items": PLACE}]}, [{"b": 1, "a": 2}], "0 0/b 0/a"),
        ({"properties": {"p": {"anyOf": [PLACE, {"items": PLACE}, {"type": "string"}]}}}, {"p": "x"}, "p"),
    ],
)
def test_keys_are_ordered_as_the_schema_of_the_alternative_orders_them(schema, value, ordered):
    def paths(node, place=()):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield "/".join(map(str, (*place, key)))
            yield from paths(child, (*place, key))

    found = in_schema_order(value, schema)
    assert found == value and list(paths(found)) == ordered.split()


def test_two_schemas_have_one_shape_that_differ_in_annotations_alone():
    noted = {
        "title": "t",
        "$id": "i",
        "$schema": "s",
        "$comment": "c",
        "description": "d",
        "examples": [1],
        "default": 1,
    }
    said = {
        "type": "object",
        "properties": {"title": {"x-y": 1, **noted}, "x": {"default": {"a": 1}}},
        "allOf": [noted],
    }
    assert shape({**noted, **said, "x-z": {}}) == {
        "type": "object",
        "properties": {"title": {}, "x": {"default": {"a": 1}}},
        "allOf": [{}],
    }


def test_pointers_values_and_places_are_listed():
    assert general_pointer("/a/0/12b/7/3") == "/a/*/12b/*/*" and general_pointer("/10a") == "/10a"
    assert list(list_values({"a": [1, {"b": None}], "c": "d"})) == [1, None, "d"] and list(list_values([])) == []
    schema = {"properties": {"properties": {"const": {"x": {}}}}, "anyOf": [{}, True], "enum": [{}]}
    assert sorted(path for path, _ in place_nodes(schema)) == [(), ("anyOf", 0), ("properties", "properties")]


def test_references_are_encoded_where_they_are_not_and_nothing_else():
    assert encode_reference("a b.json#/x%20y/50%/{z}") == "a%20b.json#/x%20y/50%25/%7Bz%7D"
    assert encode_reference("http://h/a?b=c&d@e!$'()*+,;:-._~") == "http://h/a?b=c&d@e!$'()*+,;:-._~"
    schema = {
        "$ref": "#/a b",
        "properties": {"$ref": {"$dynamicRef": "#c d", "$recursiveRef": 3}},
        "const": {"$ref": "e f"},
    }
    encode_references(schema)
    assert schema == {
        "$ref": "#/a%20b",
        "properties": {"$ref": {"$dynamicRef": "#c%20d", "$recursiveRef": 3}},
        "const": {"$ref": "e f"},
    }


def test_a_schema_is_indexed_once_and_not_for_ever():
    schemas = [{"const": i} for i in range(66)]
    first = references_of(schemas[0])
    assert all(references_of(schema) for schema in schemas[1:64]) and references_of(schemas[0]) is first
    assert references_of(schemas[64]) and references_of(schemas[0]) is not first
