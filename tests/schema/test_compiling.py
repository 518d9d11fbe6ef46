"""Which schemas can be compiled, and what is said of those that cannot."""

import json
import math
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from schema_student.core.errors import UserError
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.judging import judge


def found(value, schema):
    return [(v.path, v.keyword) for v in judge(json.dumps(value), schema).violations]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([1], "f.json: a schema is a JSON object, not an array"),
        (True, "f.json: a schema is a JSON object, not a boolean"),
        ({"minimum": math.nan}, "f.json: not JSON"),
        (
            {"properties": {"a": {"type": "strin"}}},
            'f.json: not a JSON Schema: /properties/a/type: "strin" is not one of',
        ),
        ({"required": "a"}, "f.json: not a JSON Schema: /required"),
        ({"pattern": "("}, "f.json: not a JSON Schema: /pattern"),
        ({"$schema": "https://json-schema.org/draft/2029-01/schema"}, r"f.json: /\$schema: unknown draft"),
        ({"$schema": 7}, r"f.json: /\$schema: unknown draft 7"),
        ({"items": {"$ref": "https://example.com/a.json#/b"}}, r"f.json: /items/\$ref: .* nothing is fetched"),
        ({"$ref": "file:///etc/hostname"}, r"f.json: /\$ref: .* nothing is fetched"),
        ({"$ref": "other.json"}, r"f.json: /\$ref: .* nothing is fetched"),
        ({"$ref": "#/$defs/none"}, r'f.json: /\$ref: "#/\$defs/none" points at nothing'),
        (
            {"pattern": "^.{1,100000}$"},
            "f.json: not a JSON Schema: /pattern: .* compiles too large: ask for its length",
        ),
        ({"pattern": "(.{1,100000}"}, 'f.json: not a JSON Schema: /pattern: .* is not a "regex"'),
        (
            {"minimum": 1, "exclusiveMinimum": True},
            'f.json: .* no "\\$schema" and is read as 2020-12, but has a boolean',
        ),
        ({"items": [{"type": "string"}]}, 'f.json: .*: /items: .* read as 2020-12, but has "items" as a list'),
        ({"x-rules": [{"rule": ["date_order"]}]}, "f.json: /x-rules/0: unknown rule"),
        ({"x-rules": [["date_order"]]}, "f.json: /x-rules/0: unknown rule"),
        ({"x-rules": {}}, "f.json: /x-rules: a list"),
        ({"x-rules": [{"rule": "dates"}]}, "f.json: /x-rules/0: unknown rule; known are date_order"),
        ({"x-rules": [{"rule": "date_order", "path": 3}]}, "f.json: /x-rules/0: path, start and end are strings"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_its_place(schema, message):
    with pytest.raises(SchemaError, match=message):
        compile_schema(schema, "f.json")
    assert issubclass(SchemaError, UserError)


@pytest.fixture
def schema_server():
    """The address of a schema that could be fetched, and the requests that arrived."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "integer"}')

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a.json", asked
        server.shutdown()


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_a_schema_that_could_be_fetched_is_refused_and_not_fetched(schema_server, keyword):
    address, asked = schema_server
    with pytest.raises(SchemaError, match="nothing is fetched" if keyword == "$ref" else "f.json"):
        compile_schema({"properties": {"a": {keyword: address}}}, "f.json")
    assert asked == []


def test_counts_with_a_point_are_whole_numbers():
    schema = compile_schema({"minItems": 2.0, "const": {"minItems": 2.0}, "items": {"minimum": 2.0}}).schema
    assert repr(schema) == repr({"minItems": 2, "const": {"minItems": 2.0}, "items": {"minimum": 2.0}})


def test_a_schema_nested_beyond_the_compiler_is_refused():
    schema = {}
    for _ in range(300):
        schema = {"items": schema}
    with pytest.raises(SchemaError, match="cannot be compiled"):
        compile_schema(schema)


@pytest.mark.parametrize("draft", ["http://json-schema.org/draft-07/schema#", "http://json-schema.org/draft-04/schema"])
def test_older_drafts_are_read_by_their_own_rules(draft):
    schema = compile_schema({"$schema": draft, "items": [{"type": "integer"}], "additionalItems": False})
    assert found([1, 2], schema) == [("", "additionalItems")]


def test_formats_are_checked_and_local_references_followed():
    schema = compile_schema({"$ref": "#/$defs/d", "$defs": {"d": {"type": "string", "format": "date"}}})
    assert found("2023-02-29", schema) == [("", "format")]


def test_a_schema_is_compiled_once_and_kept_from_later_changes():
    schema = {"type": "integer"}
    first = compile_schema(schema)
    assert compile_schema({"type": "integer"}) is first
    schema["type"] = "string"
    assert first.schema == {"type": "integer"}
