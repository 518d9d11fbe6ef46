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


OLD = {"$schema": "http://json-schema.org/draft-07/schema#"}
OLDEST = {"$schema": "http://json-schema.org/draft-04/schema#"}
DYNAMIC = {
    name: {
        "$id": f"http://x.test/{name}",
        "$dynamicAnchor": "n",
        "properties": {"c": {"$dynamicRef": "#n"}},
        "type": "object",
    }
    for name in "ab"
}
ONE = {"contains": {"const": 1}}
NAMED = {"propertyNames": {"pattern": "^x"}}


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        (ONE, [], ["3  contains: 0 items are valid under `contains`, at least 1 must be"]),
        (ONE | {"minContains": 2}, [1, 3], ["3  contains: 1 items are valid under `contains`, at least 2 must be"]),
        (ONE | {"maxContains": 1}, [1, 1], ["3  contains: 2 items are valid under `contains`, at most 1 may be"]),
        (
            OLD | ONE | {"minContains": 2, "maxContains": 0, "maxItems": 0},
            [1],
            ["3  maxItems: [1] has more than 0 items"],
        ),
        (OLD | ONE | {"minContains": 2}, [2], ["3  contains: 0 items are valid under `contains`, at least 1 must be"]),
        (OLDEST | ONE | NAMED | {"type": "string"}, ["a"], ['1  type: ["a"] is not of type "string"']),
        (OLDEST | NAMED | {"required": ["b"]}, {"a": 1}, ['2  required: "b" is a required property']),
        (
            NAMED,
            {"a/b": 1, "x": 1, "c": 2},
            ['2  propertyNames: "a/b" does not match "^x"', '2  propertyNames: "c" does not match "^x"'],
        ),
        ({"not": {"required": ["a"]}}, {"a": 1}, ['3  not: {"required": ["a"]} is not allowed for {"a": 1}']),
        (
            {"oneOf": [{"type": "integer"}, {"minimum": 2}]},
            3,
            ["3  oneOf: 3 is valid under more than one of the schemas listed in the 'oneOf' keyword"],
        ),
        (
            {"additionalProperties": False},
            {"a": 1},
            ["2  additionalProperties: Additional properties are not allowed ('a' was unexpected)"],
        ),
        (
            {"additionalProperties": False, "properties": {"k": {}}, "patternProperties": {"^x": {}}},
            {"a": 1, "b": 2, "k": 1, "xx": 1},
            ["2  additionalProperties: Additional properties are not allowed ('a', 'b' were unexpected)"],
        ),
        (
            OLD | {"items": [{}], "additionalItems": False},
            [1, "x", {"a": 1}],
            ['1  additionalItems: Additional items are not allowed ("x", {"a": 1} were unexpected)'],
        ),
        (
            OLD | {"items": [{}], "additionalItems": {"type": "null"}},
            [1, None, 2],
            ['1 /2 type: 2 is not of type "null"'],
        ),
        (
            OLD | {"items": {"type": "null"}, "additionalItems": False},
            [None, 2],
            ['1 /1 type: 2 is not of type "null"'],
        ),
        (OLD | {"prefixItems": [False], "maxItems": 0}, [1], ["3  maxItems: [1] has more than 0 items"]),
        (
            {"$schema": "https://json-schema.org/draft/2019-09/schema"}
            | {"dependencies": {"a": ["b"]}, "dependentSchemas": {"a": {"required": ["c"]}}},
            {"a": 1},
            ['2  required: "c" is a required property'],
        ),
        (
            {"dependentRequired": {"a": ["b", "c"], "d": ["e"]}},
            {"a": 1},
            ['2  required: "b" is a required property', '2  required: "c" is a required property'],
        ),
        (
            {"unevaluatedProperties": False, "properties": {"a": {}}},
            {"a": 1, "b": 2},
            ["2  unevaluatedProperties: Unevaluated properties are not allowed ('b' was unexpected)"],
        ),
        (
            {"unevaluatedItems": False, "prefixItems": [{}]},
            [1, 2],
            ["1  unevaluatedItems: Unevaluated items are not allowed ('2' was unexpected)"],
        ),
        ({"enum": ["a", {"x": 1}]}, {"a": [1, 2]}, ['3  enum: {"a": [1, 2]} is not one of "a", {"x": 1}']),
        ({"properties": {"a": False}}, {"a": {"b": 1}}, ["2 /a falseSchema: nothing is allowed here"]),
        ({"anyOf": [False, {"const": 1}]}, "x", ['3  anyOf: "x" is not one of 1']),
        ({"oneOf": [False, False]}, "x", ["2  falseSchema: nothing is allowed here"]),
        (
            {"anyOf": [{"anyOf": [{"const": 1}, {"enum": [2, 3]}]}, {"const": 4}]},
            "x",
            ['3  anyOf: "x" is not one of 1, 2, 3, 4'],
        ),
        (
            {"anyOf": [{"oneOf": [{"type": "null"}, {"type": ["object", "boolean"]}]}, {"allOf": [{"type": "array"}]}]},
            "x",
            ['1  type: "x" is not of any of the types null, boolean, object, array'],
        ),
        (
            {"anyOf": [{"enum": [*range(8)]}, {"enum": [*range(6, 13)]}]},
            "x",
            ['3  anyOf: "x" is not one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 1 more'],
        ),
        ({"enum": [*range(12)]}, "x", ['3  enum: "x" is not one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11']),
        ({"const": 1}, "x" * 78, ["3  const: 1 was expected"]),
        ({"enum": [1]}, "x" * 78, [f'3  enum: "{"x" * 78}" is not one of 1']),
        ({"enum": [1]}, "x" * 79, [f'3  enum: "{"x" * 76}... is not one of 1']),
        (
            {"properties": {"x": {"$ref": "http://x.test/a"}}, "$defs": DYNAMIC},
            {"x": {"c": 3}},
            ["3 /x/c $dynamicRef: 3 is not valid, and what is wrong in it was not looked at"],
        ),
        (
            {"oneOf": [record({"k": {"const": "a"}, "n": {"type": "null"}}), record({"k": {"const": "b"}})]},
            {"k": "a", "n": 1, "m": 2},
            [
                '1 /n type: 1 is not of type "null"',
                "2  additionalProperties: Additional properties are not allowed ('m' was unexpected)",
            ],
        ),
    ],
)
def test_a_violation_is_told_by_rank_place_keyword_and_words(schema, value, told):
    found = find_violations(value, compile_schema(schema))
    assert [f"{v.rank} {v.path} {v.keyword}: {v.message}" for v in found] == told


def test_a_message_of_more_than_three_hundred_characters_is_cut_in_its_middle():
    def message(length):
        (violation,) = find_violations("x", compile_schema({"enum": ["a" * length]}))
        return violation.message

    head, tail = '"x" is not one of "', '"'
    assert message(280) == f"{head}{'a' * 280}{tail}" and len(message(280)) == 300
    assert message(281) == f"{head}{'a' * 131} ... {'a' * 149}{tail}"


def test_what_is_not_looked_at_is_said_behind_the_last_violation(monkeypatch):
    monkeypatch.setattr("schema_student.schema.explaining.MAX_STEPS", 2)
    schema = compile_schema({"items": {"type": "integer"}})
    more = " (there may be more: not all was looked at)"
    assert [v.message for v in find_violations(["a"], schema)] == ['"a" is not of type "integer"']
    assert [v.message for v in find_violations(["a", "b"], schema)] == [
        '"a" is not of type "integer"',
        f'"b" is not valid, and what is wrong in it was not looked at{more}',
    ]
