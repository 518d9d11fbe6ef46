"""A user's own template and operators: what is wrong with them is said with its place; own operators are honoured."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

import pytest

from schema_student.core.errors import UserError
from schema_student.core.resources import DATA_DIR
from schema_student.core.settings import default_settings
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.dialect import TYPES, read_dialect, shipped_dialect
from schema_student.schema.judging import find_violations
from schema_student.schema.query_dsl import operator_catalog, read_dsl
from schema_student.schema.rendering import render_schema
from schema_student.teacher.embedded.bank import load_bank
from schema_student.teacher.embedded.requests import draw_request

TEMPLATE = json.loads((DATA_DIR / "schema_template.json").read_text(encoding="utf-8"))
EQUALS = {"const": "equals", "description": "the same", "synonyms": ["=", "is"]}
WITHIN = {
    "const": "within",
    "description": "lies within / se trouve dans",
    "list": True,
    "types": ["number", "integer"],
}
ABOVE = {"const": "gt", "description": "lies above / dépasse", "types": ["number", "integer", "date"]}
LIKE = {"const": "like", "description": "looks like this text / ressemble à ce texte", "types": ["string"]}
CATALOG = [EQUALS, WITHIN, ABOVE, LIKE]
SPEC = {
    "schema_id": "boats",
    "domain": "boats",
    "noun": {"en": "boats", "fr": "bateaux"},
    "description": "Boats.",
    "fields": [
        {"const": "name", "description": "name / nom", "type": "string"},
        {"const": "length", "description": "length / longueur", "type": "number"},
        {"const": "berths", "description": "berths / couchettes", "type": "integer"},
        {"const": "sold", "description": "sold / vendu", "type": "boolean"},
    ],
}


REST = [{"const": "same", "canonical": "equals"}, ABOVE]  # with LIKE they serve all fields of SPEC
RNG = random.Random(0)


def dialect_of(folder, template=TEMPLATE, catalog=CATALOG, least=2, most=4):
    (folder / "template.json").write_text(json.dumps(template))
    (folder / "operators.json").write_text(json.dumps(catalog))
    files = {"schema_template": str(folder / "template.json"), "operators": str(folder / "operators.json")}
    return read_dialect(default_settings(**files, least_operators=least, most_operators=most).operators)


def without(path):
    """The shipped template without the part at a pointer."""
    changed = json.loads(json.dumps(TEMPLATE))
    *parents, last = path.strip("/").split("/")
    part = changed
    for key in parents:
        part = part[key]
    del part[last]
    return changed


BAD_CATALOGS = {
    "/: .*array": {"const": "equals"},
    "/: ": [],
    "/0: .*description": [{"const": "equals"}],
    "/1/types/0: ": [EQUALS, {**LIKE, "types": ["text"]}],
    "/0/const: ": [{**EQUALS, "const": "is the same"}],
    "/0: .*means": [{**EQUALS, "means": "x"}],
    '/1/const: the const "equals" stands at /0/const already': [EQUALS, {**LIKE, "const": "equals"}],
    "/1/description: the description": [EQUALS, {**LIKE, "description": "the same"}],
    '/1/synonyms/0: the synonym "is" stands at /0/synonyms/1': [EQUALS, {**LIKE, "synonyms": ["is"]}],
    "no operator takes values of type boolean, enum, which": [{**EQUALS, "types": ["string", "date"]}, ABOVE],
}
BAD_TEMPLATES = {
    "/properties/steps is missing": without("/properties/steps"),
    "/properties/steps/items/properties/conditions/items/properties/field is missing": without(
        "/properties/steps/items/properties/conditions/items/properties/field"
    ),
    r"\{'prompt': 'a', 'refusal': .* is not valid: /": without("/properties/refusal"),
    "/: .limit. is a required": {**TEMPLATE, "required": ["prompt", "limit"]},
    "/type: ": {**TEMPLATE, "type": "objekt"},
}


@pytest.mark.parametrize("words", BAD_CATALOGS)
def test_a_bad_catalog_is_refused_with_its_place(words, tmp_path):
    with pytest.raises(UserError, match=rf"operators\.json: {words}" if words[0] == "/" else words):
        dialect_of(tmp_path, catalog=BAD_CATALOGS[words])


@pytest.mark.parametrize("words", BAD_TEMPLATES)
def test_a_bad_template_is_refused_with_its_place(words, tmp_path):
    with pytest.raises(UserError, match=r"template\.json") as caught:
        dialect_of(tmp_path, template=BAD_TEMPLATES[words])
    assert re.search(words, str(caught.value)), caught.value


def test_more_operators_than_the_catalog_holds_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"--most-operators 5: .*operators.json holds 4; give --most-operators 4 or less"
    ):
        dialect_of(tmp_path, most=5)


def test_a_template_without_the_marker_may_be_any(tmp_path):
    free = {key: part for key, part in TEMPLATE.items() if key != "x-dsl"} | {"required": ["prompt", "limit"]}
    assert dialect_of(tmp_path, template=free).template == free


def test_what_a_template_says_of_conditions_holds_beside_what_is_put_there(tmp_path):
    template = json.loads(json.dumps(TEMPLATE))
    conditions = template["properties"]["steps"]["items"]["properties"]["conditions"]
    conditions["items"]["allOf"] = [{"properties": {"value": {"not": {"const": "forbidden"}}}}]
    dialect = dialect_of(tmp_path, template=template)
    compiled = compile_schema(dialect.build(SPEC, dialect.operators_of({**SPEC, "operators": [LIKE, *REST]}, RNG)))

    def answer(value):
        condition = {"field": "name", "operator": "like", "value": value}
        return {"prompt": "a", "steps": [{"name": "b", "conditions": [condition], "description": ""}]}

    assert not find_violations(answer("c"), compiled)
    assert find_violations(answer("forbidden"), compiled) and find_violations(answer(3), compiled)


def test_a_template_without_a_time_frame_is_asked_without_one(tmp_path):
    dialect = dialect_of(tmp_path, template=without("/properties/timeframe"))
    schema = dialect.build(SPEC, dialect.operators_of({**SPEC, "operators": [LIKE, *REST]}, RNG))
    for seed in range(20):
        request = draw_request(
            read_dsl(schema), load_bank("teacher"), "en", "answerable", "2025-06-15", random.Random(seed)
        )
        assert "timeframe" not in request.answer


def test_own_operators_are_drawn_within_the_bounds_and_mean_what_they_say(tmp_path):
    dialect = dialect_of(tmp_path, least=3, most=3)
    for seed in range(20):
        operators = dialect.operators_of(SPEC, random.Random(seed))
        assert len(operators) == 3
        schema = dialect.build(SPEC, operators)
        read = read_dsl(schema)
        assert read.operators == {each["canonical"]: each["const"] for each in operators}
        compiled, bank = compile_schema(schema), load_bank("teacher")
        for language in ("en", "fr"):
            request = draw_request(read, bank, language, "answerable", "2025-06-15", random.Random(seed))
            assert not find_violations(request.answer, compiled)


def test_what_the_shipped_catalog_does_not_have_is_asked_in_its_own_words(tmp_path):
    dialect = dialect_of(tmp_path)
    operators = dialect.operators_of({**SPEC, "operators": [WITHIN | {"types": list(TYPES)}]}, random.Random(0))
    read, bank = read_dsl(dialect.build(SPEC, operators)), load_bank("teacher")
    asked = {
        language: [draw_request(read, bank, language, "answerable", "2025-06-15", random.Random(n)) for n in range(20)]
        for language in ("en", "fr")
    }
    assert all("lies within" in each.query for each in asked["en"])
    assert all("se trouve dans" in each.query for each in asked["fr"])
    conditions = [each for request in asked["en"] for step in request.answer["steps"] for each in step["conditions"]]
    assert all(isinstance(each["value"], list) and each["operator"] == "within" for each in conditions)


def test_a_comparison_under_another_description_is_no_reason_to_refuse(tmp_path):
    dialect = dialect_of(tmp_path)
    read = read_dsl(
        dialect.build(
            SPEC,
            dialect.operators_of(
                {**SPEC, "operators": [{"const": "same", "canonical": "equals"}, WITHIN, ABOVE]}, random.Random(0)
            ),
        )
    )
    for seed in range(60):
        request = draw_request(
            read, load_bank("teacher"), "en", "unsupported_operator", "2025-06-15", random.Random(seed)
        )
        assert "greater" not in request.answer["refusal"]["reason"]


def test_a_prompt_does_not_show_what_own_operators_mean_canonically(tmp_path):
    dialect = dialect_of(tmp_path)
    schema = dialect.build(
        SPEC, dialect.operators_of({**SPEC, "operators": [{"const": "=", "description": "the same"}]}, random.Random(0))
    )
    assert schema["x-operators"] == {"=": {"canonical": "=", "list": False, "types": list(TYPES)}}
    for rendering in ("json", "compact"):
        assert "canonical" not in render_schema(schema, rendering) and "x-operators" not in render_schema(
            schema, rendering
        )


def test_shipped_operators_of_a_spec_leave_no_note_in_its_schema():
    own = [{"const": "is", "canonical": "equals"}, {"const": "over", "canonical": "gt"}]
    dialect = shipped_dialect()
    operators = dialect.operators_of({**SPEC, "operators": own}, random.Random(0))
    known = {entry["const"]: entry["description"] for entry in operator_catalog()}
    assert operators == [{**each, "description": known[each["canonical"]]} for each in own]
    assert "x-operators" not in dialect.build(SPEC, operators)


BAD_OWN = {
    "boats: operators: /0: .*const": [{"canonical": "gt"}],
    "boats: operators: /0: between is not in the catalog, and has no description": [{"const": "between"}],
    "boats: operators: two have the same canonical": [{"const": "a", "canonical": "gt"}, {"const": "gt"}],
    "boats: operators: none takes values of type string, boolean, of which a field is": [{"const": "gt"}],
}


@pytest.mark.parametrize("words", BAD_OWN)
def test_bad_operators_of_a_spec_are_refused(words):
    with pytest.raises(SchemaError, match=words):
        shipped_dialect().operators_of({**SPEC, "operators": BAD_OWN[words]}, random.Random(0))


def test_all_operators_of_the_catalog_may_be_given():
    dialect = replace(shipped_dialect(), least=10, most=10)
    assert len(dialect.operators_of(SPEC, RNG)) == 10


def test_operators_that_cannot_serve_the_fields_are_refused_and_not_drawn_for_ever(tmp_path):
    dialect = dialect_of(
        tmp_path, catalog=[{**EQUALS, "types": ["boolean", "enum"]}, WITHIN, ABOVE, LIKE], least=1, most=1
    )
    with pytest.raises(SchemaError, match="no 1 to 1 operators of the catalog take all types of these fields"):
        dialect.operators_of(SPEC, random.Random(0))
