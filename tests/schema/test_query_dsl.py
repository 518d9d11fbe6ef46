"""Schemas of the query DSL: built of fields and operators, read back from the schema alone."""

from __future__ import annotations

import random

import pytest

from schema_student.schema.compiling import SchemaError
from schema_student.schema.query_dsl import (
    Field,
    build_schema,
    draw_operators,
    is_query_dsl,
    is_refusal,
    labels_of,
    name_operator,
    operator_catalog,
    operators_for,
    read_dsl,
    suggests_a_field,
    value_schema,
)

CATALOG = {entry["const"]: entry for entry in operator_catalog()}
SPEC = {
    "domain": "boats",
    "description": "Boats.",
    "noun": {"en": "boats", "fr": "bateaux"},
    "fields": [
        {"const": "hull_name", "description": "name / nom", "type": "string", "examples": ["Ada"]},
        {"const": "kind", "description": "", "type": "enum", "enum": [{"const": "a", "description": "sloop / sloup"}]},
        {"const": "length", "description": "how long it is all in all", "type": "number", "examples": [2, 9]},
        {"const": "built", "description": "year", "type": "date"},
        {"const": "sold", "description": "sold", "type": "boolean"},
    ],
}
WITHIN = {"const": "within", "description": "lies in / est dans", "list": True, "types": ["number"], "synonyms": ["in"]}
OPERATORS = [
    name_operator(CATALOG["equals"], "is"),
    name_operator(CATALOG["not_in"], "none_of"),
    name_operator(WITHIN, "inside"),
]


def test_a_schema_holds_fields_operators_and_a_guard_for_each_value():
    schema = build_schema(SPEC, OPERATORS)
    assert (schema["title"], schema["description"], schema["x-noun"]) == ("boats", "Boats.", SPEC["noun"])
    assert schema["x-operators"] == {"inside": {"canonical": "within", "list": True, "types": ["number"]}}
    condition = schema["properties"]["steps"]["items"]["properties"]["conditions"]["items"]
    said = {field["const"]: field["description"] for field in SPEC["fields"]}
    assert condition["properties"] == {
        "field": {"oneOf": [{"const": const, "description": words} for const, words in said.items()]},
        "operator": {
            "oneOf": [
                {"const": "is", "description": "is exactly this / est exactement"},
                {"const": "none_of", "description": "is none of these / n'est aucun de ceux-ci"},
                {"const": "inside", "description": "lies in / est dans"},
            ]
        },
        "value": {},
    }
    *fields, lists, scalars = condition["allOf"]
    assert fields == [
        {
            "if": {"properties": {"field": {"const": field["const"]}}, "required": ["field"]},
            "then": {"properties": {"value": value_schema(field)}},
        }
        for field in SPEC["fields"]
    ]
    assert (lists, scalars) == tuple(
        {
            "if": {"properties": {"operator": {"enum": names}}, "required": ["operator"]},
            "then": {"properties": {"value": value}},
        }
        for names, value in (
            (["none_of", "inside"], {"type": "array", "minItems": 1}),
            (["is"], {"type": ["string", "number", "boolean"]}),
        )
    )
    assert "x-operators" not in build_schema(SPEC, OPERATORS[:2])


def test_values_are_of_their_field_one_or_a_list_of_them():
    name, kind, length, built, sold = map(value_schema, SPEC["fields"])
    assert name == {"type": ["string", "array"], "items": {"type": "string"}, "examples": ["Ada"]}
    options = {"oneOf": [{"const": "a", "description": "sloop / sloup"}]}
    assert kind == {"if": {"type": "array"}, "then": {"items": options}, "else": options}
    assert length == {"type": ["number", "array"], "items": {"type": "number"}, "examples": [2, 9]}
    day = {"type": "string", "format": "date"}
    assert built == {"type": ["string", "array"], "format": "date", "items": day}
    assert sold == {"type": ["boolean", "array"], "items": {"type": "boolean"}}


def test_a_spec_is_read_back_with_its_labels_choices_and_examples():
    read = read_dsl(build_schema(SPEC, OPERATORS))
    assert read.fields == (
        Field("hull_name", "string", {"en": ("hull name", "name"), "fr": ("nom",)}, (), ("Ada",)),
        Field("kind", "enum", {"en": ("kind",), "fr": ("kind",)}, (("a", {"en": ("a", "sloop"), "fr": ("sloup",)}),)),
        Field("length", "number", {"en": ("length",), "fr": ("length",)}, (), (2, 9)),
        Field("built", "date", {"en": ("built", "year"), "fr": ("built",)}),
        Field("sold", "boolean", {"en": ("sold",), "fr": ("sold",)}),
    )
    assert read.operators == {"equals": "is", "not_in": "none_of", "within": "inside"}
    own = {"canonical": "within", "list": True, "types": ["number"]}
    assert read.own == {"within": {"const": "inside", "description": "lies in / est dans", **own}}
    assert (read.noun, read.has_timeframe) == (SPEC["noun"], True)
    assert [operators_for(field, read.operators, read.own) for field in read.fields] == [
        *(["equals", "not_in"], ["equals", "not_in"], ["equals", "not_in", "within"], ["equals"], ["equals"]),
    ]


def test_what_a_schema_does_not_say_has_a_default_on_reading():
    schema = build_schema(SPEC, [{"const": "odd", "canonical": "odd", "description": "unheard of"}])
    condition = schema["properties"]["steps"]["items"]["properties"]["conditions"]["items"]
    del schema["x-noun"], schema["properties"]["timeframe"], condition["allOf"]
    del condition["properties"]["field"]["oneOf"][0]["description"]
    read = read_dsl(schema)
    assert (read.noun, read.has_timeframe) == ({"en": "records", "fr": "fiches"}, False)
    assert read.operators == {} and read.own == {}
    assert read.fields[0] == Field("hull_name", "string", {"en": ("hull name",), "fr": ("hull name",)})


def test_a_description_of_four_words_is_a_label_and_a_longer_one_is_none():
    assert labels_of("a_b", "one two three four / un") == {"en": ("a b", "one two three four"), "fr": ("un",)}
    assert labels_of("a_b", "one two three four five") == {"en": ("a b",), "fr": ("a b",)}


def test_a_query_schema_and_a_refusal_are_told_by_their_marks():
    marks = ({"x-dsl": "query"}, {"x-dsl": "other"}, {}, True)
    assert [is_query_dsl(schema) for schema in marks] == [True, False, False, False]
    assert [is_refusal(each) for each in ({"refusal": {}}, {"refusal": 1}, {}, [])] == [True, False, False, False]


def test_whether_a_suggestion_names_a_field_is_not_known_of_another_template():
    refusal = {"refusal": {"suggestion": "by Hull-name"}}
    assert suggests_a_field(refusal, build_schema(SPEC, OPERATORS)) is True
    assert suggests_a_field(refusal, {"x-dsl": "query", "properties": {}}) is None


def of_type(kind):
    return {"fields": [{"const": "f", "type": kind}]}


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        ("string", {"in"}),
        ("number", {"in", "gt", "lt"}),
        ("date", {"gt", "lt"}),
        ("boolean", {*CATALOG} - {"equals"}),
    ],
)
def test_of_ten_operators_one_is_left_out_that_could_be_asked_of_the_field_and_has_no_stand_in(kind, left_out):
    draws = [draw_operators(operator_catalog(), of_type(kind), random.Random(seed), 9, 9) for seed in range(40)]
    drawn = [{each["canonical"] for each in operators} for operators in draws]
    assert set().union(*({*CATALOG} - names for names in drawn)) == left_out and all(len(names) == 9 for names in drawn)


def test_four_to_seven_operators_are_drawn_under_any_of_their_synonyms():
    draws = [draw_operators(operator_catalog(), SPEC, random.Random(seed)) for seed in range(200)]
    assert {len(operators) for operators in draws} == {4, 5, 6, 7}
    named = {(each["canonical"], each["const"]) for operators in draws for each in operators}
    assert named == {(name, word) for name, entry in CATALOG.items() for word in entry["synonyms"]}
    assert all("equals" in {each["canonical"] for each in operators} for operators in draws)  # of the boolean field


def test_text_can_be_compared_for_likeness_where_the_catalog_can_and_types_that_none_takes_are_refused():
    plain = {"equals", "like"}
    draws = [draw_operators(operator_catalog(), of_type("string"), random.Random(seed), 1, 2) for seed in range(60)]
    assert all(plain & {each["canonical"] for each in operators} for operators in draws)
    others = [CATALOG["gt"], CATALOG["lt"]]
    drawn = draw_operators(others, of_type("number"), random.Random(0), 1, 1)
    assert drawn[0]["canonical"] in ("gt", "lt")
    said = r"^no 1 to 1 operators of the catalog take all types of these fields \(boolean\)$"
    with pytest.raises(SchemaError, match=said):
        draw_operators(others, of_type("boolean"), random.Random(0), 1, 1)
