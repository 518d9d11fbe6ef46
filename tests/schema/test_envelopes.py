"""Tool definitions, response formats and OpenAPI documents are opened, or refused by name; nullable is translated."""

import json

import pytest

from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.envelopes import count_nullable, open_envelope, translate_nullable

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NAMED = {"name": "forecast", "description": "Weather."}
TITLED = {"title": "forecast", "description": "Weather.", **CITY}


@pytest.mark.parametrize(
    ("document", "envelope"),
    [
        ({**NAMED, "parameters": CITY}, "an OpenAI function"),
        ({"type": "function", "function": {**NAMED, "parameters": CITY}}, "an OpenAI tool"),
        ({"type": "function", **NAMED, "parameters": CITY, "strict": True}, "an OpenAI function"),
        ({**NAMED, "inputSchema": CITY, "outputSchema": {}}, "an MCP tool"),
        ({**NAMED, "input_schema": CITY}, "an Anthropic tool"),
        ({**NAMED, "strict": True, "schema": CITY}, "an OpenAI response format"),
        ({"type": "json_schema", "json_schema": {**NAMED, "schema": CITY}}, "an OpenAI response format"),
        ({"type": "json_schema", **NAMED, "schema": CITY}, "an OpenAI response format"),
        ({"response_format": {"type": "json_schema", "json_schema": {**NAMED, "schema": CITY}}}, "an OpenAI request"),
        ({"tools": [{"type": "function", "function": {**NAMED, "parameters": CITY}}]}, "an OpenAI tool"),
        ({"functionDeclarations": [{**NAMED, "parameters": CITY}]}, "an OpenAI function"),
    ],
)
def test_the_one_schema_of_an_envelope_is_taken(document, envelope):
    opened = open_envelope(document, "f.json")
    assert (opened.schema, opened.envelope) == (TITLED, envelope)


@pytest.mark.parametrize(
    "schema",
    [
        CITY,
        {},
        {"description": "anything"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "x-note": 1},
        {"type": ["object", "null"]},
        {"properties": {"parameters": CITY, "name": {}}},
        {"$ref": "#/$defs/a", "$defs": {"a": CITY, "b": {}}},
        {"properties": {"function": {"type": "object"}}, "name": "x", "parameters": {}},
    ],
)
def test_a_schema_is_left_as_it_is(schema):
    assert open_envelope(schema, "f.json").schema == schema and not open_envelope(schema, "f.json").envelope


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"compilerOptions": {"strict": True}, "include": ["src"]}, "no keyword of JSON Schema among compilerOptions"),
        (NAMED, "no keyword of JSON Schema among name, description"),
        ({"type": "function", "function": NAMED}, "no keyword of JSON Schema|a tool without"),
        ({"type": "function", **NAMED}, 'a tool without "parameters"'),
        ({**NAMED, "parameters": "city"}, "an OpenAI function whose schema is none"),
        ({**NAMED, "parameters": {"city": "string"}}, "an OpenAI function whose schema is none"),
        (
            {"tools": [{**NAMED, "parameters": CITY}, {"name": "b", "parameters": CITY}]},
            r'"tools" holds 2 \(forecast, b\)',
        ),
        ({"$defs": {"A": CITY, "B": CITY}}, r"2 schemas under #/\$defs could be meant \(A, B\)"),
        (
            {"openapi": "3.1.0", "components": {"schemas": {"A": CITY, "B": CITY}}},
            "2 schemas under #/components/schemas",
        ),
        ({"openapi": "3.1.0", "paths": {}}, "no keyword of JSON Schema among openapi, paths"),
    ],
)
def test_what_holds_no_schema_or_several_is_refused_by_name(document, message):
    with pytest.raises(SchemaError, match=f"^f.json: .*({message})"):
        open_envelope(document, "f.json")


@pytest.mark.parametrize(
    ("head", "path"),
    [
        ({"openapi": "3.1.0", "info": {}}, ("components", "schemas")),
        ({"swagger": "2.0"}, ("definitions",)),
        ({}, ("$defs",)),
        ({}, ("definitions",)),
    ],
)
def test_the_one_schema_that_no_other_refers_to_is_taken_from_definitions(head, path):
    order = {"type": "object", "properties": {"to": {"$ref": f"#/{'/'.join(path)}/City"}, "next": {"$ref": "#/x"}}}
    order["properties"]["next"]["$ref"] = f"#/{'/'.join(path)}/Order"
    parts = {"City": CITY, "Order": order}
    for key in reversed(path):
        parts = {key: parts}
    schema = open_envelope({**head, **parts}, "f.json").schema
    validator = compile_schema(schema).validator
    assert validator.is_valid({"to": {"city": "Oslo"}}) and not validator.is_valid({"next": {"to": {}}})
    assert schema["title"] == "Order"


def test_nullable_means_null_in_openapi_3_0_and_nothing_in_3_1():
    parts = {"schemas": {"Order": {"type": "object", "properties": {"until": {"type": "string", "nullable": True}}}}}
    for version, expected in (("3.0.3", True), ("3.1.0", False)):
        assert open_envelope({"openapi": version, "components": parts}, "f").has_nullable is expected


@pytest.mark.parametrize(
    ("part", "valid", "invalid"),
    [
        ({"type": "string", "format": "date"}, [None, "2024-01-31"], ["x", 1]),
        ({"type": "string", "enum": ["a"]}, [None, "a"], ["b"]),
        ({"$ref": "#/$defs/n"}, [None, 1], ["b"]),
        ({"allOf": [{"$ref": "#/$defs/n"}]}, [None, 1], ["b"]),
        ({"type": "array", "items": {"type": "integer", "nullable": True}}, [None, [1, None]], [["x"]]),
    ],
)
def test_nullable_is_translated(part, valid, invalid):
    schema = {"properties": {"x": {**part, "nullable": True, "description": "d"}}, "$defs": {"n": {"type": "integer"}}}
    translated = translate_nullable(json.loads(json.dumps(schema)))
    assert count_nullable(schema) >= 1 and count_nullable(translated) == 0
    validator = compile_schema(translated).validator
    assert all(validator.is_valid({"x": value}) for value in valid)
    assert not any(validator.is_valid({"x": value}) for value in invalid)
    assert translated["properties"]["x"]["description"] == "d"


def test_a_property_that_is_called_nullable_is_left_alone():
    schema = {"properties": {"nullable": True, "properties": {"type": "null"}}, "default": {"nullable": True}}
    assert count_nullable(schema) == 0 and translate_nullable(schema) == schema
