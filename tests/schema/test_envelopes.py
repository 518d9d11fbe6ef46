"""Tool definitions, response formats and OpenAPI documents are opened, or refused by name; nullable is translated."""

import json
import random

import pytest
from compact_reader import Reader

from schema_student.core.resources import CHECKOUT
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.envelopes import count_nullable, list_tools, open_envelope, translate_nullable
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations, is_valid
from schema_student.schema.rendering import render_schema

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NAMED = {"name": "forecast", "description": "Weather."}
TOOL = {**NAMED, "parameters": CITY}
DRAFTS = ("http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema")
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
        ({"jsonrpc": "2.0", "id": 1, "result": {"tools": [{**NAMED, "inputSchema": CITY}]}}, "an MCP tool"),
    ],
)
def test_the_one_schema_of_an_envelope_is_taken(document, envelope):
    opened = open_envelope(document, "f.json")
    assert (opened.schema, opened.envelope) == (TITLED, envelope)


def test_the_types_of_gemini_and_bfcl_become_those_of_json_schema():
    gemini = {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}, "type": {"type": "ARRAY"}}}
    bfcl = {"type": "dict", "properties": {"a": {"type": "float"}, "b": {"type": "any"}, "c": {"type": "tuple"}}}
    tools = [{"functionDeclarations": [{**NAMED, "parameters": gemini}]}, {**NAMED, "parameters": bfcl}]
    first, second = (tool.arguments for tool in list_tools({"tools": tools}, "f.json"))
    assert first["properties"] == {"a": {"type": ["string", "null"]}, "type": {"type": "array"}}
    assert second == {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {}, "c": {"type": "array"}},
    }
    assert gemini["type"] == "OBJECT"


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
        ({"tools": []}, '"tools" holds no tools'),
        ({"tools": [TOOL, TOOL]}, '"tools": several tools are called "forecast"'),
        ({"tools": [TOOL, {"type": "web_search"}]}, '"tools", 2: a tool without a name'),
        ({"functions": [TOOL, "b"]}, '"functions", 2: a tool without a name'),
        (
            {"tools": [TOOL, {"name": "b", "parameters": {"city": "string"}}]},
            '"tools", 2: an OpenAI function whose schema',
        ),
        (
            {"tools": [{"name": f"n{i}", "inputSchema": {"$schema": d, **CITY}} for i, d in enumerate(DRAFTS)]},
            '"tools": the tools are of different drafts',
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


def test_what_is_said_of_a_nullable_part_stays_beside_its_alternatives():
    notes = {"title": "t", "description": "d", "default": "a"}
    for key, said in (("enum", ["a"]), ("const", "a"), ("allOf", [{}]), ("anyOf", [{}]), ("oneOf", [{}])):
        part = {"type": "string", key: said}
        assert translate_nullable({**part, "nullable": True, **notes}) == {**notes, "anyOf": [part, {"type": "null"}]}
    assert translate_nullable({"type": "string", "nullable": True}) == {"type": ["string", "null"]}
    assert translate_nullable({"nullable": False, "type": "string"}) == {"nullable": False, "type": "string"}


def test_a_property_that_is_called_nullable_is_left_alone():
    schema = {"properties": {"nullable": True, "properties": {"type": "null"}}, "default": {"nullable": True}}
    assert count_nullable(schema) == 0 and translate_nullable(schema) == schema


# Several tools

TREE = {
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/N"}, "next": {"$ref": "#"}},
    "$defs": {"N": {"type": "integer"}},
}
OPENAI = [
    {"type": "function", "function": TOOL},
    {"type": "function", "function": {"name": "grow", "parameters": TREE}},
]


@pytest.mark.parametrize(
    "document",
    [
        {"tools": OPENAI, "model": "m"},
        OPENAI,
        {"functions": [TOOL, {"name": "grow", "parameters": TREE}]},
        {"tools": [{**NAMED, "inputSchema": CITY}, {"name": "grow", "inputSchema": {"$schema": DRAFTS[0], **TREE}}]},
        [{**NAMED, "input_schema": CITY}, {"name": "grow", "input_schema": {"$id": "http://x.test/tree", **TREE}}],
    ],
)
def test_of_several_tools_an_answer_calls_one(document):
    opened = open_envelope(document, "f.json")
    assert opened.envelope == "2 tools (forecast, grow), of which an answer calls one: {name, arguments}"
    compiled = compile_schema(opened.schema)
    call = {"name": "grow", "arguments": {"n": 1, "next": {"n": 2, "next": {}}}}
    for answer in (call, {"name": "forecast", "arguments": {"city": "Oslo"}}):
        assert compiled.validator.is_valid(answer)
    for answer, place in (
        ({"name": "grow", "arguments": {"next": {"next": {"n": "x"}}}}, "/arguments/next/next/n"),
        ({"name": "forecast", "arguments": {}}, "/arguments"),
        ({"name": "forecast", "arguments": {"city": "Oslo"}, "id": 1}, ""),
        ({"name": "other", "arguments": {}}, "/name"),
    ):
        assert find_violations(answer, compiled)[0].path == place
    assert is_valid(example_instance(compiled, random.Random(0)), compiled)
    rebuilt = compile_schema(Reader(render_schema(opened.schema)).schema)
    assert is_valid(call, rebuilt) and not is_valid({**call, "name": "forecast"}, rebuilt)


def test_a_choice_among_tools_is_that_of_the_real_requests():
    row = json.loads((CHECKOUT / "examples" / "bfcl" / "multiple.jsonl").read_text(encoding="utf-8").splitlines()[0])
    tools = [
        {"name": call["title"], "description": call["description"], "parameters": call["properties"]["arguments"]}
        for call in row["schema"]["oneOf"]
    ]
    schema = open_envelope({"tools": tools}, "f.json").schema
    assert {"$schema": DRAFTS[1], **schema} == row["schema"]
    assert render_schema(schema) == render_schema(row["schema"])


def test_a_tool_without_parameters_is_called_with_nothing():
    compiled = compile_schema(open_envelope([TOOL, {"type": "function", "function": {"name": "now"}}], "f.json").schema)
    assert is_valid({"name": "now", "arguments": {}}, compiled)
    assert not is_valid({"name": "now", "arguments": {"city": "Oslo"}}, compiled)


def test_a_list_of_others_is_no_schema():
    for document in ([], [CITY, CITY], [TOOL, CITY], ["a"]):
        assert open_envelope(document, "f.json").schema == document
        with pytest.raises(SchemaError, match="a schema is a JSON object, not an array"):
            compile_schema(document)
