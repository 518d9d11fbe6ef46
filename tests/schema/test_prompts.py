"""The renderer: what it says, what it may not hide, and that a shared schema is a shared prefix."""

import json

import pytest

from schema_student.schema.prompts import render_prompt
from schema_student.schema.query_dsl import build_schema, operator_catalog
from schema_student.schema.rendering import completion_text, render_schema

SHOP = {
    "title": "buy",
    "description": "Buy a thing.",
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "what to buy"},
        "count": {"type": "integer", "minimum": 1, "default": 1},
        "color": {"enum": ["red", "blue"]},
        "day": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "to": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "code": {"type": "string", "pattern": "^[A-Z]{3}$"},
    },
    "required": ["name"],
}


def test_compact_rendering_says_type_bounds_default_and_nesting_on_a_line_each():
    assert render_schema(SHOP).splitlines() == [
        "buy # Buy a thing.",
        "name string # what to buy",
        "count? integer 1.. = 1",
        "color? red|blue",
        "day? date",
        "tags? list of string",
        "to? object",
        " city string",
        " * any",
        'code? string {"pattern":"^[A-Z]{3}$"}',
        "* any",
    ]


def test_json_rendering_is_the_schema_less_its_annotations():
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "x-dsl": "query", **SHOP}
    assert json.loads(render_schema(schema, "json")) == SHOP


def test_an_unknown_rendering_is_refused():
    with pytest.raises(ValueError, match="compact"):
        render_schema(SHOP, "yaml")


def test_a_student_by_heart_is_asked_without_the_schema():
    said = render_prompt(SHOP, "buy milk", "2026-01-01", "none")
    assert said == "Write one JSON object that answers the request.\nDate: 2026-01-01\nRequest: buy milk"


def test_requests_of_one_schema_share_everything_up_to_date_and_request():
    first = render_prompt(SHOP, "buy milk", "2026-01-01")
    second = render_prompt(SHOP, "buy bread", "2026-01-01")
    assert first.removesuffix("buy milk") == second.removesuffix("buy bread")


def test_a_field_of_the_query_dsl_shows_the_type_of_its_values():
    fields = [
        {"const": "price", "description": "cost", "type": "number"},
        {"const": "kind", "description": "", "type": "enum", "enum": [{"const": "a", "description": "one"}]},
    ]
    spec = {"domain": "shop", "description": "", "noun": {}, "fields": fields}
    operators = [{**operator_catalog()[0], "canonical": operator_catalog()[0]["const"]}]
    lines = render_schema(build_schema(spec, operators)).splitlines()
    assert lines[:2] == ["shop", "prompt string # the request as asked"]
    assert "   cost: price number" in lines and "   kind (one: a)" in lines


def test_named_choices_stand_after_what_people_call_them_within_lists_too():
    size = {
        "oneOf": [
            {"const": "s", "description": "small / petit"},
            {"const": "l", "description": "large"},
            {"const": "x"},
        ]
    }
    schema = {"type": "object", "properties": {"size": size, "sizes": {"type": "array", "items": size}}}
    choices = [" small: s / petit: s", " large: l", " x"]
    assert render_schema(schema).splitlines() == ["size? one of", *choices, "sizes? list of one of", *choices, "* any"]


def test_a_recursive_schema_renders_and_ends():
    schema = {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/node"}},
        "$defs": {
            "node": {"type": "object", "properties": {"left": {"$ref": "#/$defs/node"}, "size": {"type": "integer"}}}
        },
    }
    assert "size? integer" in render_schema(schema)


def test_a_tagged_union_shows_every_option():
    schema = {
        "oneOf": [
            {"type": "object", "properties": {"a": {"const": "x"}}},
            {"type": "object", "properties": {"b": {"type": "null"}}},
        ]
    }
    assert render_schema(schema).splitlines() == ["option 1", " a? x", " * any", "option 2", " b? null", " * any"]


def test_completions_are_compact_and_keep_accents_and_key_order():
    assert completion_text({"b": "é", "a": [1, 2.5, None]}) == '{"b":"é","a":[1,2.5,null]}'


def test_what_an_anchor_or_a_place_in_a_list_names_is_rendered():
    schema = {
        "properties": {"city": {"$ref": "#name"}, "days": {"$ref": "#/allOf/0"}},
        "$defs": {"name": {"$anchor": "name", "enum": ["Oslo", "Rome"]}},
        "allOf": [{"type": "object"}],
        "additionalProperties": False,
    }
    expected = ["@root: any", " city? Oslo|Rome", " days? @allOf0", " all of", "  part 1 @allOf0", "@allOf0: object"]
    assert render_schema(schema).splitlines() == expected
