"""Which answers say the same."""

import json

from hypothesis import given
from schema_examples import JSON_VALUES, QUERY_SCHEMA, condition, query

from schema_student.schema.canonical import canonical


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
