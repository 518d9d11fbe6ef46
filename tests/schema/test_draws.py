"""A draw takes each value that it may take, and no other: numbers, names, types, texts, lengths."""

from __future__ import annotations

import random
import re
import string
import time
from collections import Counter

import jsonschema_rs
import pytest

from schema_student.schema.compiling import SchemaError
from schema_student.schema.instances import dead_ends, flattening
from schema_student.schema.instances.dead_ends import Budget, DeadEnd, OutOfBudget, OutOfTime, TooDeep, check_size
from schema_student.schema.instances.flattening import fix_properties, flatten, take_branch
from schema_student.schema.instances.formats import FORMATS, SHORT
from schema_student.schema.instances.generator import choose_type, draw_word, example_instance, split_items
from schema_student.schema.instances.merging import merge
from schema_student.schema.instances.names import choose_names
from schema_student.schema.instances.numbers import allows, draw_number
from schema_student.schema.instances.patterns import draw_from_pattern, draw_with_lookaheads
from schema_student.schema.instances.strings import draw_string
from schema_student.schema.instances.words import WORDS


def draws(draw, count=400):
    """All that a draw comes to."""
    rng = random.Random(0)
    return {draw(rng) for _ in range(count)}


# Numbers


@pytest.mark.parametrize(
    ("flat", "kind", "drawn"),
    [
        ({"minimum": 3, "maximum": 5}, "integer", {3, 4, 5}),
        ({"exclusiveMinimum": 3, "exclusiveMaximum": 6}, "integer", {4, 5}),
        ({"minimum": 4, "exclusiveMinimum": 2, "maximum": 5, "exclusiveMaximum": 9}, "integer", {4, 5}),
        ({"minimum": 2, "exclusiveMinimum": 3, "maximum": 9, "exclusiveMaximum": 6}, "integer", {4, 5}),
        ({"minimum": 3, "exclusiveMinimum": True, "maximum": 6, "exclusiveMaximum": True}, "integer", {4, 5}),
        ({"minimum": 3, "exclusiveMinimum": False, "maximum": 4, "exclusiveMaximum": False}, "integer", {3, 4}),
        ({"multipleOf": 3, "minimum": 4, "maximum": 13}, "integer", {6, 9, 12}),
        ({"multipleOf": 3, "exclusiveMinimum": 6, "exclusiveMaximum": 12}, "integer", {9}),
        ({"multipleOf": 3, "exclusiveMinimum": 6, "maximum": 12}, "integer", {9, 12}),
        ({"multipleOf": 1000}, "integer", {1000}),
        ({"multipleOf": 1000, "minimum": 500}, "integer", {1000}),
        ({"multipleOf": 1000, "maximum": -500}, "integer", {-1000}),
        ({"multipleOf": 0.5, "minimum": 1, "maximum": 2}, "number", {1.0, 1.5, 2.0}),
        ({"multipleOf": 0.5, "minimum": 1, "maximum": 3}, "integer", {1, 2, 3}),
        ({"multipleOf": 0.1, "minimum": 0.25, "maximum": 0.35}, "number", {0.3}),
        ({"minimum": 0, "maximum": 0.02}, "number", {0.0, 0.01, 0.02}),
        ({"minimum": 2**53 + 1, "maximum": 2**53 + 2}, "integer", {2**53 + 1, 2**53 + 2}),
        ({"multipleOf": 1e-300, "minimum": 1e300, "maximum": 1e301}, "number", {1e300}),
        ({}, "integer", {*range(1, 102)}),
        ({"minimum": 3}, "integer", {*range(3, 104)}),
        ({"minimum": -300}, "integer", {*range(-300, 101)}),
        ({"maximum": 5}, "integer", {*range(-95, 6)}),
        ({"maximum": 200}, "integer", {*range(1, 201)}),
    ],
)
def test_a_number_is_any_within_its_bounds_and_near_one_where_there_is_no_other(flat, kind, drawn):
    found = draws(lambda rng: draw_number(flat, kind, rng), 5000 if len(drawn) > 10 else 100)
    assert found == drawn and {type(number) is int for number in found} == {kind == "integer"}


def test_a_number_has_more_than_two_decimals_only_where_bounds_leave_no_other():
    within = {"exclusiveMinimum": 0.001, "exclusiveMaximum": 0.004}
    assert all(0.001 < number < 0.004 for number in draws(lambda rng: draw_number(within, "number", rng)))
    assert {round(number, 2) == number for number in draws(lambda rng: draw_number({}, "number", rng))} == {True}


@pytest.mark.parametrize(
    "flat",
    [{"minimum": 3, "maximum": 2}, {"exclusiveMinimum": 3, "exclusiveMaximum": 4}, {"multipleOf": 7, "maximum": 6}],
)
def test_a_number_that_no_bounds_leave_is_a_dead_end(flat):
    with pytest.raises(DeadEnd):
        draw_number({"minimum": 1, **flat}, "integer", random.Random(0))


def test_a_number_of_the_caller_is_taken_where_bounds_allow_it_and_no_step_is_asked():
    bounds = {"minimum": 3, "exclusiveMaximum": 6}
    assert [number for number in (2.9, 3, 5.9, 6) if allows(bounds, number)] == [3, 5.9]
    assert not allows({"multipleOf": 1}, 3)
    whole = {"type": "array", "items": {"type": "integer", **bounds}, "minItems": 1}
    for liked, drawn in ((4, {4}), (6, {3, 4, 5}), (None, {3, 4, 5})):
        asked = []

        def number(flat, path, kind, liked=liked, asked=asked):
            asked.append((path, kind))
            return liked

        found = draws(lambda rng, number=number: example_instance(whole, rng, number=number)[0], 60)
        assert found == drawn and asked[0] == ("/0", "integer")


# Objects and arrays


@pytest.mark.parametrize(
    ("flat", "sparse", "drawn"),
    [
        ({"properties": {"a": True, "b": {}, "c": False}, "required": ["b"]}, False, ["b", "ab"]),
        ({"properties": {"a": True, "b": {}}, "required": ["b", "z", "b"]}, False, ["bz", "abz"]),
        ({"properties": {"a": True, "b": {}}, "required": ["b"]}, True, ["b"]),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "required": ["c"], "maxProperties": 2}, False, ["c", "ac", "bc"]),
        ({"properties": {"a": {}, "b": {}}, "required": ["a", "b"], "maxProperties": 1}, False, ["ab"]),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2}, False, ["ab", "ac", "bc", "abc"]),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2}, True, ["ab"]),
        ({"properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b", "x"]}}, False, ["", "b", "abx"]),
        ({"required": ["y"]}, False, ["y"]),
    ],
)
def test_an_object_has_what_is_required_and_some_of_the_others_in_their_order(flat, sparse, drawn):
    assert draws(lambda rng: "".join(choose_names(flat, rng, sparse))) == {*drawn}


def test_a_quarter_of_objects_has_all_that_is_optional_and_a_quarter_none():
    flat, rng = {"properties": dict.fromkeys("abcdefghij", True)}, random.Random(0)
    counts = Counter(len(choose_names(flat, rng, False)) for _ in range(2000))
    assert 440 < counts[0] < 560 and 440 < counts[10] < 560 and counts[5] > 200


@pytest.mark.parametrize(
    ("flat", "drawn"),
    [
        ({}, {"string", "integer", "boolean"}),
        ({"type": "null"}, {"null"}),
        ({"type": ["null"]}, {"null"}),
        ({"type": ["null", "array", "object"]}, {"null", "array", "object"}),
        ({"title": "a", "minimum": 1, "items": {}}, {"number"}),
        *(({key: 1}, {"object"}) for key in ("properties", "required", "additionalProperties", "minProperties")),
        *(({key: 1}, {"object"}) for key in ("patternProperties", "propertyNames")),
        *(({key: 1}, {"array"}) for key in ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains")),
        *(({key: 1}, {"string"}) for key in ("pattern", "format", "minLength", "maxLength")),
        *(({key: 1}, {"number"}) for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
        ({"multipleOf": 1}, {"number"}),
    ],
)
def test_a_type_is_one_that_is_named_or_of_which_the_keywords_speak(flat, drawn):
    assert draws(lambda rng: choose_type(flat, rng)) == drawn


def test_of_values_that_may_be_null_a_tenth_is():
    rng = random.Random(0)
    assert 150 < [choose_type({"type": ["null", "string"]}, rng) for _ in range(2000)].count("null") < 250


@pytest.mark.parametrize(
    ("schema", "lengths"),
    [
        ({}, {1, 2, 3}),
        ({"minItems": 2}, {2, 3, 4, 5}),
        ({"maxItems": 0}, {0}),
        ({"maxItems": 2}, {1, 2}),
        ({"minItems": 2, "maxItems": 3}, {2, 3}),
        ({"prefixItems": [{}, {}], "items": False}, {1, 2}),
        ({"prefixItems": [{}, {}]}, {1, 2, 3}),
        ({"contains": {"const": 0}, "minContains": 2}, {2, 3, 4, 5}),
        ({"contains": {"const": 0}}, {1, 2, 3, 4}),
        ({"contains": {"const": 0}, "minContains": 0}, {1, 2, 3}),
    ],
)
def test_an_array_has_as_many_items_as_it_must_and_up_to_three_more(schema, lengths):
    items = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    assert draws(lambda rng: len(example_instance(items | schema, rng)), 60) == lengths


def test_what_stands_beside_others_is_as_deep_as_they_are():
    """From six levels on only what is required is made; a neighbour is no level."""
    inner = {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "null"}}}}
    rows = {"type": "array", "items": inner, "minItems": 6, "maxItems": 6}
    found = [example_instance(rows, random.Random(seed))[5] for seed in range(40)]
    assert {len(items) for items in found} == {1, 2, 3} and {str(items[-1]) for items in found} == {"{}", "{'a': None}"}
    nested = {"type": "array", "items": {"type": "integer"}}
    for _ in range(6):
        nested = {"type": "array", "items": nested, "minItems": 1, "maxItems": 1}
    assert draws(lambda rng: str(example_instance(nested, rng)), 20) == {"[[[[[[[]]]]]]]"}
    assert draws(lambda rng: len(example_instance(nested["items"], rng)[0][0][0][0][0]), 40) == {1, 2, 3}


def test_what_an_array_must_contain_stands_at_its_end_and_items_that_may_repeat_seldom_do():
    wanted = {"type": "array", "contains": {"const": "x"}, "minContains": 2, "items": {"enum": ["x", "y", "z"]}}
    rng = random.Random(0)
    assert all(example_instance(wanted, rng)[-2:] == ["x", "x"] for _ in range(30))
    pairs = [example_instance({"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "maxItems": 2}, rng)
             for _ in range(400)]  # fmt: skip
    assert 3 <= sum(a == b for a, b in pairs) <= 30  # (1/3)^3 of them


def test_first_items_and_the_others_are_told_apart_by_the_keywords_of_each_draft():
    assert split_items({"prefixItems": [1], "items": 2}) == ([1], 2)
    assert split_items({"items": [1], "additionalItems": 2}) == ([1], 2)
    assert split_items({"items": [1]}) == ([1], True) and split_items({}) == ([], True)


def test_names_are_invented_where_a_minimum_asks_for_them():
    def names(schema):
        return draws(lambda rng: tuple(example_instance({"type": "object", "minProperties": 2, **schema}, rng)), 40)

    assert all(re.fullmatch(r"[a-z]+_\d", name) for pair in names({}) for name in pair)
    assert {len(pair) for pair in names({})} == {2}
    assert names({"propertyNames": {"enum": ["p", "q"]}}) == {("p", "q"), ("q", "p")}
    fitting = names({"patternProperties": {"^n[1-3]$": {}}, "additionalProperties": False})
    assert fitting == {(f"n{i}", f"n{j}") for i in "123" for j in "123" if i != j}
    assert {pair[0] for pair in names({"properties": {"a": {}}, "required": ["a"]})} == {"a"}


# Texts


@pytest.mark.parametrize(
    ("pattern", "reach", "drawn"),
    [
        ("^(a|b)[0-1]?$", 4, ["a", "b", "a0", "a1", "b0", "b1"]),
        ("^a*$", 4, ["", "a", "aa", "aaa", "aaaa"]),
        ("^a*$", 1, ["", "a"]),
        ("^a{2,3}$", 4, ["aa", "aaa"]),
        ("^a{2,}$", 1, ["aa", "aaa"]),
        ("^a+?$", 1, ["a", "aa"]),
        ("^a?+b$", 1, ["b", "ab"]),
        (r"^\d$", 4, string.digits),
        (r"^\w$", 4, string.ascii_lowercase + string.digits + "_"),
        (r"^\s$", 4, " "),
        (r"^\D$", 4, "abcxyz-"),
        (r"^\W$", 4, " -."),
        (r"^\S$", 4, "abcxyz019"),
        ("^.$", 4, "abcdefghij"),
        ("^[a-c.]$", 4, "abc."),
        ("^[^a]$", 4, {*string.ascii_letters, *string.digits} - {"a"}),
        ("^[^a-y]$", 4, {*string.ascii_uppercase, *string.digits, "z"}),
        ("^[^a-zA-Z0-9]$", 4, {*string.punctuation, " "}),
        ("^[\u0100-\u0fff]$", 4, {chr(code) for code in range(0x100, 0x100 + 201)}),
        (r"^\p{Lu}$", 4, string.ascii_letters),
        (r"^\p{Nd}$", 4, string.digits),
        ("^a(?=b)(?!c)$", 4, "a"),
        ("^ab", 4, ["ab", *(f"ab{word}" for word in WORDS)]),
    ],
)
def test_a_text_of_a_pattern_is_any_of_its_texts_up_to_some_repetitions(pattern, reach, drawn):
    found = draws(lambda rng: draw_from_pattern(pattern, rng, reach), 3000 if len(drawn) > 50 else 800)
    assert found == {*drawn}


def test_behind_a_pattern_without_end_there_is_more_in_seven_of_ten():
    rng = random.Random(0)
    assert 650 < sum(draw_from_pattern("^ab", rng) != "ab" for _ in range(1000)) < 750


@pytest.mark.parametrize("pattern", ["(", "[^ -~]", r"(a)\1", "a{99999999999}"])
def test_a_pattern_of_which_no_text_can_be_drawn_is_a_dead_end(pattern):
    with pytest.raises(DeadEnd):
        draw_from_pattern(pattern, random.Random(0))


@pytest.mark.parametrize(
    ("pattern", "drawn"),
    [
        ("^(?=.*Q)xyz$", ["Qyz", "xQz", "xyQ", "xyzQ"]),
        ("^(?=.*Q)(?=.*7)xyz$", ["Q7z", "7Qz", "xQ7", "x7Q", "xyQ7", "xy7Q", "xyzQ7", "xyz7Q"]),
        ("^((?=.*?Q)x)$", ["Q", "xQ"]),
        ("^(?<=Q)xy(?!Q)$", ["xy"]),
    ],
)
def test_what_lookaheads_ask_for_is_written_over_a_text_anywhere(pattern, drawn):
    assert draws(lambda rng: draw_with_lookaheads(pattern, rng)) == {*drawn}


@pytest.mark.parametrize(
    ("flat", "drawn"),
    [
        ({}, {"blue whale"}),
        ({"minLength": 10, "maxLength": 10}, {"blue whale"}),
        ({"maxLength": 6}, {"blue w"}),
        ({"maxLength": 5}, {"blue"}),
        ({"minLength": 5, "maxLength": 5}, {"bluea"}),
        ({"minLength": 11}, {f"blue whale {word}" for word in WORDS}),
        ({"minLength": 12, "maxLength": 13}, {f"blue whale {word[:2]}" for word in WORDS}),
        ({"format": "unheard of"}, {"blue whale"}),
        ({"pattern": "^[ab]$"}, {"a", "b"}),
        ({"format": "duration", "pattern": "^P[1-3]D$"}, {"P1D", "P2D", "P3D"}),
        ({"format": "ipv4", "maxLength": 7}, {"1.1.1.1"}),
    ],
)
def test_a_text_is_the_word_of_the_caller_within_its_length_unless_a_pattern_or_format_is_asked(flat, drawn):
    assert draws(lambda rng: draw_string(flat, rng, lambda: "blue whale")) == drawn


def test_a_word_is_an_example_of_the_schema_in_half_of_all_draws():
    rng = random.Random(0)
    found = Counter(draw_word({"examples": ["x", 3]}, rng) for _ in range(1000))
    assert set(found) == {"x", *WORDS} and 450 < found["x"] < 550
    assert draws(lambda rng: draw_word({}, rng)) == {*WORDS}


RANGES = {
    "duration": {f"P{days}D" for days in range(1, 31)},
    "ipv4": {f"192.0.2.{last}" for last in range(1, 255)},
    "regex": {f"^{word}$" for word in WORDS},
    "relative-json-pointer": {f"{up}/{word}" for up in range(3) for word in WORDS},
    "uri-template": {f"https://example.com/{{{word}}}" for word in WORDS},
    "time": {f"{hour:02}:{minute:02}:00Z" for hour in range(24) for minute in range(0, 60, 5)},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_of_a_format_has_it_and_varies(name):
    validator = jsonschema_rs.validator_for({"format": name}, validate_formats=True)
    found = draws(FORMATS[name], 3000)
    assert all(map(validator.is_valid, found)) and len(found) >= len(WORDS)
    assert found == RANGES.get(name, found)
    shortest = SHORT.get(name, "")
    assert (validator.is_valid(shortest) or name in ("date", "uuid")) and len(shortest) <= min(map(len, found))


def test_dates_are_of_a_thousand_days():
    found = draws(FORMATS["date"], 9000)
    assert (len(found), min(found), max(found)) == (1000, "2024-01-01", "2026-09-26")


# Conjunctions and conditions


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({"type": "integer"}, {"type": "number"}, {"type": ["integer"]}),
        ({"type": "number"}, {"type": ["integer", "null"]}, {"type": ["integer"]}),
        ({"type": ["string", "null"]}, {"type": ["null", "integer"]}, {"type": ["null"]}),
        ({"type": ["integer", "number"]}, {"type": "number"}, {"type": ["integer", "number"]}),
        ({"enum": [1, 2, "a"]}, {"enum": ["a", 2.0]}, {"enum": [2, "a"]}),
        ({"enum": [1, 2.0, 2.5, "1", True, None]}, {"type": "integer"}, {"enum": [1, 2.0], "type": "integer"}),
        ({"enum": [1, 2.5, "1", True]}, {"type": "number"}, {"enum": [1, 2.5], "type": "number"}),
        ({"enum": [1, True, None]}, {"type": ["boolean", "null"]}, {"enum": [True, None], "type": ["boolean", "null"]}),
        ({"enum": ["a", [], {}]}, {"type": ["array", "object"]}, {"enum": [[], {}], "type": ["array", "object"]}),
        ({"required": ["b", "a"]}, {"required": ["a", "c"]}, {"required": ["b", "a", "c"]}),
        ({"multipleOf": 4}, {"multipleOf": 6}, {"multipleOf": 12}),
        ({"multipleOf": 0.5}, {"multipleOf": 2}, {"multipleOf": 2}),
        *(
            ({key: 2}, {key: 5}, {key: 5})
            for key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
        ),
        *(
            ({key: 2}, {key: 5}, {key: 2})
            for key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
        ),
        ({"uniqueItems": False}, {"uniqueItems": True}, {"uniqueItems": True}),
        ({"items": {"minimum": 1}}, {"items": True}, {"items": {"minimum": 1}}),
        ({"items": {"minimum": 1}}, {"items": False}, {"items": False}),
        ({"items": {"minimum": 1}}, {"items": {"maximum": 2}}, {"items": {"allOf": [{"minimum": 1}, {"maximum": 2}]}}),
        ({"items": [{"minimum": 1}, True]}, {"items": [{"minimum": 1}]}, {"items": [{"minimum": 1}]}),
        ({"additionalProperties": True}, {"additionalProperties": {}}, {"additionalProperties": {}}),
        (
            {"patternProperties": {"a": True}},
            {"patternProperties": {"b": False}},
            {"patternProperties": {"a": True, "b": False}},
        ),
        (
            {"properties": {"a": {}, "c": True}},
            {"additionalProperties": False, "properties": {"c": {"minimum": 1}}},
            {"properties": {"a": False, "c": {"minimum": 1}}, "additionalProperties": False},
        ),
        (
            {"properties": {"ab": True}},
            {"patternProperties": {"^a": {"minimum": 1}, "x": False}},
            {
                "properties": {"ab": {"allOf": [{"minimum": 1}]}},
                "patternProperties": {"^a": {"minimum": 1}, "x": False},
            },
        ),
        ({"title": "one", "format": "date"}, {"title": "other"}, {"title": "one", "format": "date"}),
    ],
)
def test_a_conjunction_allows_what_both_allow(one, other, both):
    assert merge(one, other) == both


@pytest.mark.parametrize(
    ("one", "other"),
    [({"type": "string"}, {"type": "null"}), ({"enum": [1]}, {"enum": [2]}), ({"enum": [1]}, {"type": "string"})],
)
def test_a_conjunction_of_what_excludes_each_other_is_a_dead_end(one, other):
    with pytest.raises(DeadEnd):
        merge(one, other)


def flat_of(schema, root=None):
    return flatten(schema, root or {}, random.Random(0), Budget())


def test_a_flat_schema_has_all_that_a_schema_says_and_its_conditions_beside_it():
    condition = {"if": {"required": ["a"]}, "then": {"required": ["b"]}}
    schema = {
        "type": "object",
        "allOf": [{"minProperties": 1, **condition}, {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}],
        "anyOf": [{"maxProperties": 9}],
        "oneOf": [{"required": ["c"]}],
        "if": False,
        "else": {"required": ["d"]},
    }
    flat, conditions = flat_of(schema, {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}], "title": "A"}}})
    assert flat == {"type": "object", "minProperties": 1, "title": "A", "required": ["c"], "maxProperties": 9}
    assert conditions == [{"if": False, "else": {"required": ["d"]}}, condition]
    assert flat_of({"const": 3, "enum": [2, 3]}) == ({"enum": [3]}, []) and flat_of(True) == ({}, [])
    with pytest.raises(DeadEnd):
        flat_of({"allOf": [False]})


def test_a_condition_that_is_taken_to_hold_is_merged_with_what_follows_else_what_follows_otherwise():
    condition = {
        "if": {"minimum": 1},
        "then": {"maximum": 5, "if": True, "then": {"title": "deep"}, "else": {"title": "deep"}},
        "else": {"maximum": 0},
    }
    rng = random.Random(0)
    taken = [take_branch({"multipleOf": 2}, condition, {}, rng, Budget()) for _ in range(40)]
    holds = {"multipleOf": 2, "minimum": 1, "maximum": 5, "title": "deep"}
    assert all(each in (holds, {"multipleOf": 2, "maximum": 0}) for each in taken) and 10 < taken.count(holds) < 30
    assert all(take_branch({}, {"if": True}, {}, rng, Budget()) == {} for _ in range(9))


def test_what_a_condition_asks_about_is_held_as_the_value_has_it():
    test = {
        "properties": {"a": {}},
        "required": ["b"],
        "not": {"required": ["c"]},
        "anyOf": [{"properties": {"d": {}}}],
    }
    assert flattening.tested_properties(test) == {"a", "b", "c", "d"} and flattening.tested_properties(True) == set()
    flat = {"properties": {"a": {"minimum": 1}, "e": {}}, "required": ["d"]}
    assert fix_properties(flat, {"e": 0, "b": 2, "a": 1}, {"a", "b", "c", "d"}) == {
        "properties": {
            "a": {"allOf": [{"minimum": 1}, {"enum": [1]}]},
            "e": {},
            "b": {"allOf": [True, {"enum": [2]}]},
            "c": False,
        },
        "required": ["d", "b", "a"],
    }


# What all tries may cost


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "not": {}}, 8),
        ({"type": "object", "properties": {"a": {"type": "string", "not": {}}}, "required": ["a"]}, 8 * 8),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True}, 8 * (1 + 12)),
    ],
)
def test_a_value_is_drawn_eight_times_before_the_one_around_it_and_an_item_that_must_differ_twelve(schema, words):
    asked = []
    with pytest.raises(SchemaError, match="no valid instance found in 1 tries"):
        example_instance(schema, random.Random(0), tries=1, word=lambda part, path: asked.append(path) or "x")
    assert len(asked) == words


def test_an_item_that_may_repeat_is_drawn_three_times_for_another_one():
    asked, schema = [], {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
    assert example_instance(schema, random.Random(0), word=lambda part, path: asked.append(path) or "x") == ["x", "x"]
    assert asked == ["/0", "/1", "/1", "/1"]


def test_a_try_has_a_bound_of_values_levels_and_parts(monkeypatch):
    monkeypatch.setattr(dead_ends, "MAX_VALUES", 2)
    monkeypatch.setattr(dead_ends, "MAX_STEPS", 4)
    budget = Budget()
    budget.renew(3)
    budget.spend_node(3)
    with pytest.raises(TooDeep, match="deeper than 3 levels"):
        budget.spend_node(4)
    with pytest.raises(OutOfBudget, match="larger than 2 values"):
        budget.spend_node(0)
    budget.renew(3)
    for _ in range(4):
        budget.spend_step()
    with pytest.raises(OutOfBudget, match="more than 4 parts"):
        budget.spend_step()


def test_all_tries_together_have_a_bound_of_time_that_is_looked_at_now_and_then(monkeypatch):
    clock = [5.0]
    monkeypatch.setattr(time, "thread_time", lambda: clock[0])
    budget = Budget()
    clock[0] = 6.5
    for _ in range(64):
        budget.spend_step()
    clock[0] = 6.6
    for _ in range(63):
        budget.spend_step()
    with pytest.raises(OutOfTime, match=r"longer than 1\.5 s"):
        budget.spend_step()


def test_a_size_beyond_what_is_made_is_out_of_budget():
    check_size("minItems", 7, 7)
    for asked, said in (
        (8, "minItems 8 asks for more than the 7 that"),
        (10**18, r"minItems of more than 10\^18 asks"),
    ):
        with pytest.raises(OutOfBudget, match=said):
            check_size("minItems", asked, 7)
