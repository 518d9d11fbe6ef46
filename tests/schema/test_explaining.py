"""An explanation names the right place, ends within its budget, and says what was cut."""

import time
from string import ascii_lowercase

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schema_student.schema.compiling import compile_schema
from schema_student.schema.explaining import MAX_VIOLATIONS
from schema_student.schema.judging import find_violations, judge_value

NODE = {"$ref": "#/$defs/node"}


def tree(*alternatives, **more):
    return compile_schema({**NODE, **more, "$defs": {"node": {"oneOf": list(alternatives)}}})


def record(properties, required=None, closed=True):
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
    }
    return schema | ({"additionalProperties": False} if closed else {})


def seconds(call):
    start = time.thread_time()
    call()
    return time.thread_time() - start


OPERATORS = ("add", "sub", "mul", "div", "pow", "mod")
EXPRESSION = tree(
    {"type": "number"}, *(record({"left": NODE, "op": {"const": name}, "right": NODE}) for name in OPERATORS)
)
KINDS = tree(*(record({name: {"type": "array", "items": NODE}}, closed=False) for name in "abc"), {"type": "string"})
LISTS = tree({"type": "array", "items": NODE}, {"type": "array", "items": NODE, "maxItems": 3}, {"type": "string"})


def nested(depth, wrap, leaf):
    value = leaf
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("depth", [5, 12, 24])
@pytest.mark.parametrize(
    ("schema", "wrap", "leaf"),
    [
        (EXPRESSION, lambda value: {"op": "add", "left": value, "right": 1}, "x"),
        (EXPRESSION, lambda value: {"op": "neg", "left": value, "right": value} if value == "x" else value, "x"),
        (KINDS, lambda value: {"a": [value], "c": [1]}, 1),
        (LISTS, lambda value: [value], 1),
    ],
)
def test_a_wrong_answer_to_a_recursive_schema_is_explained_in_moments(schema, wrap, leaf, depth):
    value = nested(depth, wrap, leaf)
    assert seconds(lambda: find_violations(value, schema)) < 2
    violations = find_violations(value, schema)
    assert violations and not any("there may be more" in violation.message for violation in violations)


def test_a_bushy_wrong_answer_is_explained_in_moments():
    value = nested(6, lambda inner: {"a": [inner], "b": [inner], "c": [inner]}, 1)
    assert seconds(lambda: find_violations(value, KINDS)) < 2
    assert find_violations(value, KINDS)


def test_the_place_is_found_through_twenty_four_levels_of_a_recursive_schema():
    value = nested(24, lambda inner: {"op": "add", "left": inner, "right": 1}, "x")
    (violation,) = find_violations(value, EXPRESSION)
    assert (violation.path, violation.keyword) == ("/left" * 24, "type")


@pytest.mark.parametrize("wrong", [10**6, 1])
def test_a_million_items_are_explained_in_moments_and_the_cut_is_said(wrong):
    schema = compile_schema({"type": "array", "items": {"type": "integer"}})
    value = [0] * (10**6 - wrong) + ["x"] * wrong
    assert seconds(lambda: judge_value(value, schema)) < 3
    violations = judge_value(value, schema).violations
    assert len(violations) == min(wrong, MAX_VIOLATIONS)
    assert ("there may be more" in violations[-1].message) == (wrong > 1)


def test_an_invalid_value_has_a_violation_even_where_keywords_are_not_walked():
    schema = {"$dynamicRef": "#n", "$defs": {"n": {"$dynamicAnchor": "n", "type": "object"}}}
    assert find_violations(3, compile_schema(schema))
    assert find_violations({"a": 1}, compile_schema({"unevaluatedProperties": False}))[0].rank == 2


@pytest.mark.parametrize(
    ("schema", "value", "found"),
    [
        ({"contains": {"const": 1}, "minContains": 2}, [1, 3], [("", "contains")]),
        ({"contains": {"const": 1}, "maxContains": 1}, [1, 1], [("", "contains")]),
        ({"propertyNames": {"pattern": "^x"}}, {"a": 1, "x": 1}, [("", "propertyNames")]),
        ({"patternProperties": {"^a": False}}, {"ab": 1}, [("/ab", "falseSchema")]),
        ({"additionalProperties": {"type": "null"}, "patternProperties": {"^a": {}}}, dict(a=1, b=2), [("/b", "type")]),
        ({"not": {"required": ["a"]}}, {"a": 1}, [("", "not")]),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, [("", "required")]),
        ({"prefixItems": [True], "items": False}, [1, 2], [("/1", "falseSchema")]),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": False}, {}, [("", "falseSchema")]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"], "c": {"required": ["d"]}}},
         {"a": 1, "c": 1}, [("", "required"), ("", "required")]),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "if": {}, "then": False},
         0, [("", "minimum")]),
    ],
)  # fmt: skip
def test_each_keyword_that_names_other_subschemas_is_walked(schema, value, found):
    assert [(v.path, v.keyword) for v in find_violations(value, compile_schema(schema))] == found


LEAF = record({"field": {"enum": ["a", "b"]}, "value": {"type": "number"}}, closed=False)
LISTED = (record({name: {"type": "array", "items": NODE}}, closed=False) for name in ("and", "or"))
FILTER = tree(*LISTED, record({"not": NODE}, closed=False), LEAF)


def test_the_alternative_is_told_that_knows_the_names_of_the_value():
    (violation,) = find_violations({"field": "a", "value": "BAD"}, FILTER)
    assert (violation.path, violation.keyword, violation.rank) == ("/value", "type", 1)
    (violation,) = find_violations({"and": [{"not": {"field": "a", "value": "BAD"}}]}, FILTER)
    assert violation.path == "/and/0/not/value"


def test_a_wrong_tag_hides_no_other_fault():
    schema = compile_schema({"oneOf": [record({"kind": {"const": kind}, "n": {"type": "integer"}}) for kind in "ab"]})
    violations = find_violations({"kind": "c", "n": "x"}, schema)
    assert [(v.path, v.keyword) for v in violations] == [("/kind", "enum"), ("/n", "type")]
    assert violations[0].message == '"c" is not one of "a", "b"'


def test_the_alternative_of_the_right_tag_is_told_though_another_is_cheaper_to_repair():
    kinds = {"a": "integer", "b": "string"}
    alternatives = [record({"kind": {"const": k}, "x": {"type": t}, "y": {"type": t}}) for k, t in kinds.items()]
    violations = find_violations({"kind": "a", "x": "q", "y": "q"}, compile_schema({"oneOf": alternatives}))
    assert [v.path for v in violations] == ["/x", "/y"]


TYPED = {"string": st.text("xyz", max_size=3), "integer": st.integers(0, 9), "boolean": st.booleans()}
WRONG = {"string": [1, None, {}], "integer": ["q", None, []], "boolean": ["q", 5, []]}


@st.composite
def broken_unions(draw):
    """Alternatives with names of their own, perhaps tagged; an instance of one, broken in one place; what is told."""
    tagged, closed = draw(st.booleans()), draw(st.booleans())
    alternatives, instances = [], []
    for kind in range(draw(st.integers(2, 4))):
        types = {f"{ascii_lowercase[kind]}{i}": draw(st.sampled_from(sorted(TYPED))) for i in range(3)}
        properties = {name: {"type": kind} for name, kind in types.items()} | {
            "inner": record({"k": {"type": "integer"}})
        }
        tag = {"kind": {"const": kind}} if tagged else {}
        alternatives.append(record(tag | properties, closed=closed))
        value = {name: draw(TYPED[kind]) for name, kind in types.items()} | {"inner": {"k": 1}}
        instances.append((types, ({"kind": kind} if tagged else {}) | value))
    types, value = draw(st.sampled_from(instances))
    name, how = draw(st.sampled_from(sorted(value))), draw(st.sampled_from(["retype", "drop", "add"]))
    if how == "add" and closed:
        return alternatives, value | {"zz": 1}, ("", "additionalProperties", 2)
    if how == "drop":
        return alternatives, {key: child for key, child in value.items() if key != name}, ("", "required", 2)
    if name == "inner":
        return alternatives, value | {"inner": {"k": "q"}}, ("/inner/k", "type", 1)
    if name == "kind":
        return alternatives, value | {"kind": "none"}, ("/kind", "enum", 3)
    return alternatives, value | {name: draw(st.sampled_from(WRONG[types[name]]))}, (f"/{name}", "type", 1)


@given(broken_unions(), st.sampled_from(["oneOf", "anyOf"]))
def test_an_instance_broken_in_one_place_is_explained_by_that_place_and_rank(union, keyword):
    alternatives, value, (path, *told) = union
    assume(not any(find_violations(value, compile_schema(each)) == () for each in alternatives))
    schema = {"$defs": {"u": {keyword: alternatives}}, "properties": {"x": {"$ref": "#/$defs/u"}}}
    violations = find_violations({"x": value}, compile_schema(schema))
    assert [(v.path, v.keyword, v.rank) for v in violations] == [(f"/x{path}", *told)]


@pytest.mark.parametrize("address", ["http://x.test/a/order", "order", "/s/order", "s/order", "http://x.test/order#"])
def test_faults_are_found_in_parts_relative_to_the_id_of_the_schema(address):
    part = {"$id": "part", "type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"minimum": 2}}}
    schema = {"$id": address, "properties": {"x": {"$ref": "part"}}, "$defs": {"p": part}}
    compiled = compile_schema(schema)
    assert [(v.path, v.keyword) for v in find_violations({"x": {"n": 1}}, compiled)] == [("/x/n", "minimum")]


def test_a_reference_to_false_is_told():
    compiled = compile_schema({"properties": {"x": {"$ref": "#/$defs/no"}}, "$defs": {"no": False}})
    assert [(v.path, v.keyword) for v in find_violations({"x": 1}, compiled)] == [("/x", "falseSchema")]


def test_an_invalid_value_has_a_violation_also_where_no_part_is_found_at_fault(monkeypatch):
    monkeypatch.setattr("schema_student.schema.subschemas.Subschemas.is_valid", lambda *_: True)
    assert find_violations(3, compile_schema({"type": "string", "description": "blamed on none"}))[0].path == ""


@pytest.mark.parametrize("depth", [100, 199, 300])
@pytest.mark.parametrize("schema", [{"type": "string"}, {"const": "x"}, {"items": {"items": {}}, "maxItems": 0}])
def test_a_fault_of_a_value_that_nests_deep_is_told(depth, schema):
    value = []
    for _ in range(depth):
        value = [value]
    assert len(find_violations(value, compile_schema(schema))) == 1
