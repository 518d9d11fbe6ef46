"""What all instances of a schema hold at least; what is larger than any answer that is made is named by its place."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.sizes import find_excess, measure_least

HUGE = {"type": "string", "minLength": 10**6}
NAMES = st.sampled_from(["a", "b", "minItems", "x/y"])


def count(value):
    """Count values and characters of texts in a value."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    inner = [count(child) for child in children]
    characters = len(value) if isinstance(value, str) else 0
    return 1 + sum(values for values, _ in inner), characters + sum(more for _, more in inner)


@st.composite
def measured(draw, depth=3):
    """A schema, and what its smallest instance holds: values, characters."""
    kind = draw(st.sampled_from(["string", "integer"] + ["array", "object", "anyOf", "allOf", "$ref"] * (depth > 0)))
    if kind == "integer":
        return {"type": kind}, (1, 0)
    if kind == "string":
        length = draw(st.integers(0, 9))
        return {"type": kind, "minLength": length}, (1, length)
    schema, (values, characters) = draw(measured(depth - 1))
    if kind == "array":
        least = draw(st.integers(0, 3))
        return {"type": kind, "minItems": least, "items": schema}, (1 + least * values, least * characters)
    if kind == "object":
        names = draw(st.lists(NAMES, unique=True, max_size=2))
        more = draw(st.integers(0, 2))
        properties = {name: schema for name in names} | {"optional": HUGE}
        least = 1 + len(names) * values + more, len(names) * characters
        return {"type": kind, "properties": properties, "required": names, "minProperties": len(names) + more}, least
    if kind == "$ref":
        return {"allOf": [{"$ref": "#/$defs/r"}], "x": {"r": schema}}, (values, characters)
    return {kind: [schema, HUGE if kind == "anyOf" else {}]}, (values, characters)


def hoisted(schema):
    """The schema with what its references name at the top, each under a name of its own."""
    parts = {}

    def walk(node):
        if isinstance(node, list):
            return [walk(child) for child in node]
        if not isinstance(node, dict):
            return node
        if "x" in node:
            name = f"r{len(parts)}"
            parts[name] = True
            parts[name] = walk(node["x"]["r"])
            return {"allOf": [{"$ref": f"#/$defs/{name}"}]}
        return {key: walk(child) for key, child in node.items()}

    return {**walk(schema), "$defs": parts}


@given(measured(), st.integers(0, 9))
def test_the_least_size_is_that_of_the_smallest_instance(made, seed):
    schema, least = made
    schema = hoisted(schema)
    assert measure_least(schema)[:2] == least
    try:
        instance = example_instance(compile_schema(schema), random.Random(seed), tries=5)
    except SchemaError:
        return
    assert all(one >= other for one, other in zip(count(instance), least, strict=True))


def levels(count, least):
    schema = {"type": "string"}
    for _ in range(count):
        schema = {"type": "array", "minItems": least, "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "place", "excess"),
    [
        ({"type": "object", "minProperties": 10**5}, "/minProperties", "100,001 values, too many to teach"),
        ({"minItems": 10**30}, "/minItems", "more than 10^18 values"),
        (HUGE, "/minLength", "1,000,000 characters, too many to teach (at most 100,000)"),
        ({"type": "array", "contains": {"const": 1}, "minContains": 3000}, "/minContains", "3,001 values"),
        (levels(2, 60), "/minItems", "3,661 values"),
        (levels(40, 9), "", "more than 10^18 values"),
        ({"type": "object", "required": [f"n{i}" for i in range(3000)]}, "/required", "3,001 values"),
        ({"type": "object", "required": ["a"], "properties": {"a": HUGE}}, "/properties/a/minLength", "1,000,000"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{}, HUGE]}}}, "/$ref/allOf/1/minLength", "1,000,000"),
        ({"anyOf": [HUGE, levels(2, 60)]}, "/anyOf/1/minItems", "3,661 values"),
    ],
)  # fmt: skip
def test_what_is_larger_than_what_is_made_is_named_with_its_place(schema, place, excess):
    found = find_excess(compile_schema(schema).schema)
    assert found.startswith(f"{place}") and f": every answer would have at least {excess}" in found
    with pytest.raises(SchemaError):
        example_instance(schema, random.Random(0), tries=3)


def test_the_characters_of_all_texts_count_together():
    items = {"minItems": 101, "items": {"type": "string", "minLength": 1000}}
    assert find_excess(items).startswith("/minItems: every answer would have at least 101,000 characters")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["string", "null"], "minLength": 10**6},
        {"type": "object", "properties": {"a": HUGE}},
        {"anyOf": [HUGE, {"type": "integer"}]},
        {"not": HUGE},
        {"if": HUGE, "then": False},
        {"enum": ["a"], "minItems": 10**6},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {}}, "required": ["b"]},
        levels(1, 2999),
    ],
)
def test_what_has_a_small_instance_is_taken(schema):
    assert find_excess(schema) == ""


def test_schemas_that_come_back_to_themselves_or_nest_deep_end():
    assert find_excess({"type": "array", "minItems": 2, "items": {"$ref": "#"}}) == ""
    assert find_excess({"$ref": "#"}) == ""
    chain = {f"d{i}": {"type": "array", "minItems": 1, "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(2000)}
    assert find_excess({"$ref": "#/$defs/d0", "$defs": chain | {"d2000": {}}}) == ""
