"""An example instance is always valid, whatever the schema; where none exists, that is said."""

import random
import sys
import time
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from schema_examples import BFCL_ROWS, QUERY_SCHEMA
from schema_strategies import SCHEMAS

from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations


@given(SCHEMAS, st.integers(0, 2**16))
def test_an_example_is_always_valid(schema, seed):
    value = example_instance(schema, random.Random(seed))
    assert find_violations(value, compile_schema(schema)) == ()


@given(SCHEMAS)
def test_the_same_seed_makes_the_same_example(schema):
    assert repr(example_instance(schema, random.Random(5))) == repr(example_instance(schema, random.Random(5)))


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 5}]},
        {
            "allOf": [
                {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"a": {"minimum": 9}}},
            ]
        },
        {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {}}},
        {"type": "integer", "not": {"multipleOf": 2}},
        {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
        {"type": "array", "items": {"type": "integer"}, "contains": {"const": 5}},
        {
            "type": "object",
            "patternProperties": {"^n_": {"type": "integer"}},
            "additionalProperties": False,
            "minProperties": 2,
        },
        {
            "type": "object",
            "propertyNames": {"pattern": "^x"},
            "additionalProperties": {"type": "null"},
            "minProperties": 2,
        },
        {"type": "object", "properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}},
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
        {"type": "number", "multipleOf": 0.01, "minimum": 0.07, "maximum": 0.09},
        {"type": ["string", "null"], "enum": [None, 3]},
        {
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "n": {}},
            "required": ["kind", "n"],
            "if": {"properties": {"kind": {"const": "a"}}},
            "then": {"properties": {"n": {"type": "integer"}}},
            "else": {
                "properties": {"n": {"type": "array", "minItems": 2}, "why": {"type": "string"}},
                "required": ["why"],
            },
        },
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "type": "integer",
            "maximum": 5,
            "exclusiveMaximum": True,
        },
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#/definitions/a",
            "definitions": {"a": {"const": 1}},
        },
        {"$ref": "#tree", "$defs": {"t": {"$anchor": "tree", "type": "array", "items": {"$ref": "#tree"}}}},
        QUERY_SCHEMA,
    ],
)
def test_each_way_to_combine_schemas_is_covered(schema):
    compiled = compile_schema(schema)
    rng = random.Random(0)
    assert all(find_violations(example_instance(compiled, rng, tries=20), compiled) == () for _ in range(40))


def test_recursive_schemas_end():
    expression = {
        "oneOf": [
            {"type": "number"},
            {
                "type": "object",
                "properties": {"op": {"enum": "+-"}, "l": {"$ref": "#/$defs/e"}, "r": {"$ref": "#/$defs/e"}},
                "required": ["op", "l", "r"],
                "additionalProperties": False,
            },
        ]
    }
    expression["oneOf"][1]["properties"]["op"]["enum"] = ["+", "-"]
    schema = {
        "type": "object",
        "properties": {"e": {"$ref": "#/$defs/e"}},
        "required": ["e"],
        "$defs": {"e": expression},
    }
    values = [example_instance(schema, random.Random(seed)) for seed in range(30)]
    assert any(isinstance(value["e"], dict) for value in values)


def test_every_real_schema_has_an_example():
    for row in BFCL_ROWS:
        compiled = compile_schema(row["schema"])
        assert find_violations(example_instance(compiled, random.Random(1), tries=1), compiled) == ()


def test_queries_use_all_that_the_dsl_offers():
    values = [example_instance(QUERY_SCHEMA, random.Random(seed)) for seed in range(60)]
    conditions = [c for value in values for step in value.get("steps", []) for c in step["conditions"]]
    assert any("refusal" in value for value in values)
    assert any("timeframe" in value for value in values)
    assert {c["field"] for c in conditions} == {"color", "price", "day"}
    assert {c["operator"] for c in conditions} == {"is", "over", "among"}


def test_optional_properties_come_and_go():
    schema = {"type": "object", "properties": {"a": {}, "b": {}}}
    names = {tuple(example_instance(schema, random.Random(seed))) for seed in range(40)}
    assert names == {(), ("a",), ("b",), ("a", "b")}


def test_words_come_from_the_caller():
    asked = []

    def word(schema, path):
        asked.append((path, schema["description"]))
        return "blue whale"

    name = {"type": "string", "description": "its name", "maxLength": 6}
    schema = {
        "type": "object",
        "properties": {"animals": {"type": "array", "items": name, "minItems": 1}},
        "required": ["animals"],
    }
    assert example_instance(schema, random.Random(0), word=word)["animals"][0] == "blue w"
    assert asked[0] == ("/animals/0", "its name")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 3, "maximum": 1},
        {"type": "string", "pattern": "^a$", "minLength": 4},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"not": {}},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]}},
        },
    ],
)
def test_where_nothing_is_valid_that_is_said(schema):
    with pytest.raises(SchemaError, match="no valid instance found in 20 tries"):
        example_instance(schema, random.Random(0), tries=20)


def required_levels(depth):
    schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def chained(count, schema):
    """Definitions of which each is what `schema` makes of a reference to the next one."""
    chain = {f"d{i}": schema({"$ref": f"#/$defs/d{i + 1}"}) for i in range(count)}
    return {"$ref": "#/$defs/d0", "$defs": chain | {f"d{count}": {"type": "integer"}}}


def to(name):
    return {"$ref": f"#/$defs/{name}"}


def of_several_names(ref):
    return {"type": "object", "properties": {"a": ref, "b": ref}}


MUTUAL = {f"t{i}": {"properties": {f"p{j}": {"$ref": f"#/$defs/t{j}"} for j in range(8)}} for i in range(8)}
PASSWORD = "^(?=.*[a-z])(?=.*[A-Z])(?=.*\\d)(?=.*[@$!%*?&])[A-Za-z\\d@$!%*?&]{8,}$"
POSSIBLE = {
    "chained definitions": chained(1600, lambda ref: {"type": "object", "properties": {"a": ref}}),
    "doubling references": chained(22, of_several_names),
    "doubling allOf": chained(22, lambda ref: {"allOf": [ref, ref]}),
    "types that refer to each other": {"$ref": "#/$defs/t0", "$defs": MUTUAL},
    "thirty levels": required_levels(30),
    "ninety levels": required_levels(90),
    "beyond a double": {"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 1},
    "a number beyond a double": {"type": "number", "minimum": 2**53 + 1, "maximum": 2**53 + 1},
    "the greatest double": {"type": "integer", "minimum": sys.float_info.max},
    "the least double": {"type": "number", "maximum": -sys.float_info.max},
    "all doubles": {"type": "number", "maximum": sys.float_info.max, "minimum": -sys.float_info.max},
    "the smallest double": {"type": "number", "exclusiveMinimum": 5e-324, "maximum": 1e-320},
    "the smallest step": {"type": "number", "multipleOf": 1e-300, "minimum": 3},
    "a step beyond a hundred": {"type": "integer", "multipleOf": 1000},
    "a step beyond a hundred, from below": {"type": "integer", "multipleOf": 1000, "minimum": 500},
    "a step beyond a hundred, from above": {"type": "number", "multipleOf": 1000.5, "maximum": -7},
    "the greatest step": {"type": "number", "multipleOf": sys.float_info.max},
    "propertyNames true": {"type": "object", "propertyNames": True, "minProperties": 2},
    "propertyNames false": {"type": "object", "propertyNames": False},
    "named by reference": {"minProperties": 2, "propertyNames": to("n"), "$defs": {"n": {"pattern": "^x_"}}},
    "a password": {"type": "string", "pattern": PASSWORD, "minLength": 8, "maxLength": 32},
    "signs that lookaheads ask for": {"type": "string", "pattern": "^(?=.*Q)(?=.*7)(?=.*!).{8,}$"},
    "a lookahead behind a text": {"type": "string", "pattern": "^(?=.*q)x"},
    "a pattern and a length": {"minItems": 5, "items": {"type": "string", "pattern": "^[a-z]+$", "minLength": 12}},
    "a format and a pattern": {"type": "string", "format": "date", "pattern": "^20\\d{2}-(0[1-9]|1[0-2])-"},
    "a short URI": {"type": "string", "format": "uri", "maxLength": 10},
    "a long URI": {"type": "string", "format": "uri", "minLength": 60, "maxLength": 64},
    "an enum that is empty, beside others": {"anyOf": [{"enum": []}, {"type": "integer"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", POSSIBLE)
def test_schemas_that_can_be_satisfied_have_an_instance_within_two_seconds(name):
    compiled = compile_schema(POSSIBLE[name])
    start = time.thread_time()
    value = example_instance(compiled, random.Random(0))
    assert time.thread_time() - start < 4
    assert find_violations(value, compiled) == ()


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "object", "minProperties": 10**7}, "minProperties 10000000 asks for more than the 3000"),
        ({"type": "object", "minProperties": 10**5, "propertyNames": {"pattern": "^a"}}, "minProperties 100000"),
        ({"type": "string", "minLength": 10**6, "pattern": "^[a-z]+$"}, "minLength 1000000 asks for more than the"),
        ({"type": "array", "minItems": 10**9}, "minItems 1000000000"),
        ({"type": "array", "contains": {"const": 1}, "minContains": 10**6}, "minItems 1000000"),
        ({"type": "string", "minLength": 10**300}, "minLength of more than 10"),
        ({"enum": []}, ""),
        (chained(130, lambda ref: {"type": "object", "properties": {"a": ref}, "required": ["a"]}), "deeper than 100"),
        (chained(22, lambda ref: {"allOf": [ref | {"title": "a"}, ref | {"title": "b"}]}), "longer than 1.5 s"),
    ],
)  # fmt: skip
def test_what_is_asked_beyond_the_budget_is_named_within_two_seconds(schema, why):
    start = time.thread_time()
    with pytest.raises(SchemaError, match=f"no valid instance found in 100 tries.*{why}"):
        example_instance(schema, random.Random(0))
    assert time.thread_time() - start < 5


WORDS = st.text("abcxyz019-_ ", min_size=1, max_size=8)


@st.composite
def satisfiable(draw, depth=3):
    """A schema, as people write them, and a value that it was made around."""
    kinds = ["string", "integer", "number", "boolean", "enum"] + (
        ["object", "array", "union", "reference"] if depth else []
    )
    kind = draw(st.sampled_from(kinds))
    if kind == "string":
        value = draw(WORDS)
        bounds = {"minLength": draw(st.integers(0, len(value))), "maxLength": len(value) + draw(st.integers(0, 5))}
        return draw(
            st.sampled_from([{}, bounds, {"pattern": "^[a-z0-9 _-]+$"}, bounds | {"pattern": "[a-z0-9 _-]"}])
        ) | {"type": kind}, value
    if kind in ("integer", "number"):
        value = draw(st.integers(-(10**6), 10**6)) / (1 if kind == "integer" else 4)
        near = {"minimum": value - draw(st.integers(0, 9)), "maximum": value + draw(st.integers(0, 9))}
        return draw(
            st.sampled_from([{}, near, {"exclusiveMinimum": value - 1}, {"multipleOf": 0.25, "minimum": value}])
        ) | {"type": kind}, value
    if kind == "boolean":
        return {"type": kind}, True
    if kind == "enum":
        values = draw(st.lists(WORDS, min_size=1, max_size=4))
        return {"enum": values}, values[0]
    if kind == "array":
        schema, value = draw(satisfiable(depth - 1))
        return {"type": kind, "items": schema, "minItems": draw(st.integers(0, 3)), "maxItems": 3}, [value]
    inner = [draw(satisfiable(depth - 1)) for _ in range(draw(st.integers(1, 4)))]
    if kind == "union":
        return {
            draw(st.sampled_from(["anyOf", "oneOf"])): [
                {"properties": {f"k{i}": s}, "required": [f"k{i}"], "type": "object", "additionalProperties": False}
                for i, (s, _) in enumerate(inner)
            ]
        }, {"k0": inner[0][1]}
    names = [f"{name}{i}" for i, name in enumerate(draw(st.lists(WORDS, min_size=len(inner), max_size=len(inner))))]
    properties = {name: schema for name, (schema, _) in zip(names, inner, strict=True)}
    value = {name: example for name, (_, example) in zip(names, inner, strict=True)}
    more = draw(
        st.sampled_from(
            [
                {},
                {"additionalProperties": False},
                {"minProperties": len(names)},
                {"dependentRequired": {names[0]: names}},
            ]
        )
    )
    whole = {
        "type": "object",
        "properties": properties,
        "required": draw(st.lists(st.sampled_from(names), unique=True)),
        **more,
    }
    if kind == "reference":
        return {"allOf": [whole, {"properties": {names[0]: properties[names[0]]}}], "title": "t"}, value
    return whole, value


def test_nineteen_of_twenty_satisfiable_schemas_have_an_instance_and_the_others_a_named_failure_within_two_seconds():
    searches = Counter()

    @given(satisfiable(), st.integers(0, 99))
    def search(made, seed):
        schema, value = made
        compiled = compile_schema(schema)
        assume(find_violations(value, compiled) == ())
        start = time.thread_time()
        try:
            assert find_violations(example_instance(compiled, random.Random(seed)), compiled) == ()
            searches["found"] += 1
        except SchemaError:
            searches["failed"] += 1
        assert time.thread_time() - start < 5

    search()
    assert searches["found"] >= 19 * searches["failed"] and searches["found"] > 20
