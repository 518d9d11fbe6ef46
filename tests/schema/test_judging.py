"""What judge, canonical and matches must say, on the query DSL, on real requests and on hostile text."""

import json
import math
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Thread

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_examples import BFCL_ROWS, QUERY_SCHEMA

from schema_student.core.errors import UserError
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.grading import grade, is_right
from schema_student.schema.judging import find_violations, judge
from schema_student.schema.parsing import MAX_DEPTH, parse_strict

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)
SURROGATE = chr(0xD800)
QUERY = compile_schema(QUERY_SCHEMA)


def query(*conditions, **more):
    steps = [{"name": "s", "conditions": list(conditions), "description": "d"}]
    return {"prompt": "p", "steps": steps, **more}


def condition(field, operator, value):
    return {"field": field, "operator": operator, "value": value}


def found(value, schema=QUERY):
    return [(v.path, v.keyword) for v in judge(json.dumps(value), schema).violations]


# Strict JSON


@given(JSON_VALUES)
def test_what_json_writes_is_read_back(value):
    assert parse_strict(json.dumps(value)) == (value, None)
    assert parse_strict(json.dumps(value, ensure_ascii=False)) == (value, None)


@given(st.text())
def test_any_text_is_parsed_or_refused_with_a_reason(text):
    value, error = parse_strict(text)
    assert value is None or error is None
    assert error is None or error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("NaN", "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ("1e999", "number out of range: 1e999"),
        ("9" * 5000, "Exceeds the limit"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', 'duplicate key "c"'),
        ('"\\ud800"', "lone surrogate"),
        ('{"\\udc00\\ud800": 1}', "lone surrogate"),
        (f'"{SURROGATE}"', "lone surrogate"),
        ('{"a": 1} and', "Extra data"),
        ("{'a': 1}", "double quotes"),
        ("\ufeff1", "Expecting value"),
        ("\u00a01", "Expecting value"),
        ('"\t"', "Invalid control character"),
        ("01", "Extra data"),
        ("[1,]", "Expecting value"),
        ('{"a": 1', "Expecting ',' delimiter"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper than 200"),
        ("[" * 50_000 + "]" * 50_000, "nested deeper than 200"),
        ('{"a":' * 50_000, "nested deeper than 200"),
    ],
)
def test_what_rfc_8259_or_its_limits_refuse_is_not_json(text, reason):
    value, error = parse_strict(text)
    assert value is None
    assert reason in error
    assert judge(text, compile_schema({})).rank == 0


@pytest.mark.parametrize(
    "text",
    [
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '"' + "[{" * 500 + '"',
        "[" + "[]," * 500 + "[]]",
        '"\\ud83d\\ude00"',
        '"\\"[["',
    ],
)
def test_brackets_in_strings_wide_arrays_and_surrogate_pairs_are_json(text):
    assert parse_strict(text)[1] is None


def test_fences_are_stripped_only_on_demand_and_told():
    schema = compile_schema({"type": "object"})
    text = '```json\n{"a": 1}\n```\n'
    assert judge(text, schema).rank == 0
    verdict = judge(text, schema, strip_fences=True)
    assert (verdict.rank, verdict.fences_stripped) == (4, True)
    assert not judge('{"a": 1}', schema, strip_fences=True).fences_stripped
    assert judge("Here it is:\n" + text, schema, strip_fences=True).rank == 0


# Verdicts


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


# Compile


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


def test_date_order_is_left_to_format_where_the_dates_are_none():
    rule = {"rule": "date_order", "path": "", "start": "a", "end": "b"}
    schema = compile_schema({"x-rules": [rule]})
    for value in ({"a": "soon", "b": "2024-01-01"}, {"a": 3, "b": 1}, {"a": "2024-01-01"}, [], "x"):
        assert find_violations(value, schema) == ()
    assert find_violations({"a": "2024-01-02", "b": "2024-01-01T09:00:00Z"}, schema)[0].path == "/b"


# Meaning


def test_the_order_of_conditions_and_of_list_values_means_nothing():
    a = query(condition("color", "among", ["red", "blue"]), condition("price", "is", 1))
    b = query(condition("price", "is", 1.0), condition("color", "among", ["blue", "red"]))
    b["prompt"], b["steps"][0]["name"], b["steps"][0]["description"] = "other", "other", "other"
    assert canonical(a, QUERY_SCHEMA) == canonical(b, QUERY_SCHEMA)


def test_the_order_of_steps_and_the_timeframe_mean_something():
    one, two = query(condition("price", "is", 1)), query(condition("price", "is", 2))
    both = {**one, "steps": one["steps"] + two["steps"]}
    swapped = {**one, "steps": two["steps"] + one["steps"]}
    dated = {**one, "timeframe": {"start": "2024-01-01", "end": "2024-01-02"}}
    assert len({canonical(value, QUERY_SCHEMA) for value in (one, two, both, swapped, dated)}) == 5


def test_refusals_mean_the_same_whatever_their_words():
    a, b = ({"prompt": "p", "refusal": {"reason": word, "suggestion": word}} for word in "xy")
    assert canonical(a, QUERY_SCHEMA) == canonical(b, QUERY_SCHEMA) == '{"refusal":true}'


@given(JSON_VALUES)
def test_any_value_has_a_canonical_text_even_where_it_is_not_valid(value):
    assert canonical(value, QUERY_SCHEMA) == canonical(value, QUERY_SCHEMA)
    assert canonical({"steps": value}, QUERY_SCHEMA)
    assert canonical({"steps": [{"conditions": value}]}, QUERY_SCHEMA)
    assert json.loads(canonical(value, {})) == value


def test_optional_properties_equal_to_their_default_are_dropped():
    part = {"properties": {"n": {"default": 1}}}
    schema = {
        "properties": {"unit": {"default": "m"}, "size": {"default": 2}, "parts": {"items": {"$ref": "#/$defs/part"}}},
        "required": ["size"],
        "$defs": {"part": part},
    }
    value = {"unit": "m", "size": 2, "parts": [{"n": 1.0}, {"n": True}]}
    assert canonical(value, schema) == '{"parts":[{},{"n":true}],"size":2}'


def test_true_is_not_one_and_text_is_not_a_number():
    assert len({canonical(value, {}) for value in (True, 1, "1", [1], None)}) == 5


@pytest.mark.parametrize(
    ("value", "accepted", "ok"),
    [
        ({"a": 1.0}, {"a": [1]}, True),
        ({"a": True}, {"a": [1]}, False),
        ({"a": "1"}, {"a": [1]}, False),
        ({"city": "New York,NY"}, {"city": ["new york, ny"]}, True),
        ({"city": "Boston"}, {"city": ["new york, ny"]}, False),
        ({}, {"unit": ["km", ""]}, True),
        ({}, {"unit": ["km"]}, False),
        ({"unit": "km", "extra": 1}, {"unit": ["km"]}, False),
        ({"xs": ["G", "C"]}, {"xs": [["C", "G"], ["G", "C"]]}, True),
        ({"xs": ["G"]}, {"xs": [["C", "G"], ["G", "C"]]}, False),
        ({"t": [[1, 2], [3, 4]]}, {"t": [[[1, 2], [3, 4]]]}, True),
        ({"o": {"k": "v1"}}, {"o": [{"k": ["v0", "V1"], "j": ["", 3]}]}, True),
        ({"o": {"k": "v2"}}, {"o": [{"k": ["v0", "v1"]}]}, False),
        ({"l": [{"k": "a"}, {"k": "b"}]}, {"l": [[{"k": ["a"]}, {"k": ["b"]}]]}, True),
        ([], {"a": [1]}, False),
    ],
)
def test_accepted_alternatives(value, accepted, ok):
    assert is_right(value, None, {}, accepted) is ok


def test_a_match_needs_the_target_or_an_alternative():
    assert is_right({"a": 1}, {"a": 1.0}, {})
    assert not is_right({"a": 1}, {"a": 2}, {})
    assert is_right({"a": 1}, {"a": 2}, {}, {"a": [1, 2]})
    assert not is_right({"a": 1}, None, {})


def test_every_answer_to_a_real_request_is_valid_and_accepted():
    for row in BFCL_ROWS:
        verdict = judge(json.dumps(row["answer"]), compile_schema(row["schema"], row["id"]))
        assert (row["id"], verdict.rank, verdict.violations) == (row["id"], 4, ())
        assert is_right(verdict.value, None, row["schema"], row["accepted"]), row["id"]


def test_no_answer_to_a_real_request_is_accepted_for_another_one():
    for one, other in pairwise(BFCL_ROWS):
        if one["answer"] != other["answer"]:
            assert not is_right(one["answer"], other["answer"], other["schema"], other["accepted"]), one["id"]
