"""Requests of any schema as people write them: values of the right kind, all of them said."""

import json
import random
from pathlib import Path

import pytest

from schema_student.data.grounding import ungrounded_values
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import is_valid
from schema_student.teacher.embedded.bank import load_bank
from schema_student.teacher.embedded.concepts import (
    date_format,
    draw_number_like,
    draw_text,
    find_number_concept,
    find_text_concept,
    number_concepts,
    text_concepts,
)
from schema_student.teacher.embedded.plain import choose_alternative, word_plainly
from schema_student.teacher.embedded.writing import write_answer, write_queries

BFCL = Path(__file__).parents[2] / "examples" / "bfcl"


@pytest.mark.parametrize(
    ("name", "description", "concept"),
    [
        ("city", "", "city"),
        ("departureCity", "", "starting place"),
        ("to", "The email address to send to.", "email"),
        ("to", "", "destination"),
        ("location", "The city and state, e.g. Denver, CO", "city and state"),
        ("base_currency", "The currency to convert from.", "currency"),
        ("player_name", "Name of the player.", "person"),
        ("p", "The color of the bird.", "color"),
        ("unit", "Unit of the temperature", "unit of temperature"),
        ("unit", "", "unit"),
    ],
)
def test_a_text_is_of_the_concept_that_its_name_and_description_tell(name, description, concept):
    assert find_text_concept(name, description).name == concept


@pytest.mark.parametrize(
    ("name", "description", "concept"),
    [
        ("release_year", "", "year"),
        ("years", "The time in years.", "years"),
        ("interestRate", "", "rate"),
        ("budget", "", "money"),
        ("adults", "Number of adults", "count"),
        ("radius", "", "length"),
    ],
)
def test_a_number_is_of_the_concept_that_its_name_and_description_tell(name, description, concept):
    assert find_number_concept(name, description).name == concept


def test_every_concept_can_be_drawn():
    assert len(text_concepts()) > 50 and len(number_concepts()) > 15
    for concept in text_concepts():
        assert concept.values or concept.name == "identifier", concept.name
        assert len({value for value, *_ in concept.values}) == len(concept.values)
    for concept in number_concepts():
        assert all(low < high for low, high in concept.ranges), concept.name


def test_dates_are_of_the_format_that_is_described():
    rng = random.Random(0)
    for written, expected in (("MM/DD/YYYY", r"%m/%d/%Y"), ("YYYY-MM-DD", "%Y-%m-%d")):
        assert date_format("d", f"in the format {written}") == expected
    text = draw_text("d", {"description": "in the format DD/MM/YYYY"}, [], rng)
    day, month, year = map(int, text.split("/"))
    assert 1 <= day <= 31 and 1 <= month <= 12 and 2015 <= year <= 2026
    assert date_format("candidate", "") is None


def test_numbers_are_of_their_kind():
    rng = random.Random(1)
    years = [draw_number_like("year", {}, "integer", rng) for _ in range(50)]
    assert all(isinstance(year, int) and 1900 <= year <= 2025 for year in years)
    shares = [draw_number_like("discount_rate", {}, "number", rng) for _ in range(50)]
    assert all(0 < share < 1 for share in shares)
    assert draw_number_like("qzx", {}, "number", rng) is None


def test_bounds_of_the_schema_win_over_the_concept():
    schema = compile_schema(
        {"type": "object", "properties": {"year": {"type": "integer", "maximum": 5}}, "required": ["year"]}
    )
    asked = {"schema": schema.schema, "count": 6}
    for query in write_queries(asked)["queries"]:
        assert is_valid(write_answer({**asked, "query": query}), schema)


def word(value, properties, seed, **more):
    schema = {"type": "object", "properties": properties, **more}
    return word_plainly(value, schema, load_bank("teacher")["en"], random.Random(seed))


def test_a_share_is_said_as_a_percentage_and_money_with_commas():
    rate = {"type": "number"}
    said = " ".join(word({"interest_rate": 0.05}, {"interest_rate": rate}, seed) for seed in range(30))
    assert " 5%" in said and "0.05" in said
    assert "0.5%" not in said
    said = " ".join(word({"budget": 12500}, {"budget": {"type": "integer"}}, seed) for seed in range(60))
    assert "$12,500" in said and "$12500" in said


def test_a_description_in_the_imperative_becomes_demand_or_question():
    description = "Calculate the area of a triangle given its base and height."
    said = [word({"base": 6}, {"base": {"type": "integer"}}, seed, description=description) for seed in range(40)]
    assert any("what is the area of a triangle" in text.lower() for text in said)
    assert any("calculate the area of a triangle" in text.lower() for text in said)
    assert all("6" in text for text in said)


def test_of_a_choice_among_tools_the_request_speaks_of_the_one_that_is_called():
    tool = {
        "title": "cook",
        "properties": {"name": {"const": "cook"}, "arguments": {"properties": {"dish": {"type": "string"}}}},
    }
    root = {"oneOf": [{"properties": {"name": {"const": "wash"}}}, tool], "$defs": {"x": {}}}
    value, schema = choose_alternative({"name": "cook", "arguments": {"dish": "pie"}}, root)
    assert value == {"dish": "pie"} and schema["title"] == "cook" and schema["$defs"] == {"x": {}}
    assert choose_alternative({"a": 1}, {"properties": {}}) == ({"a": 1}, {"properties": {}})


def test_all_values_are_said():
    """On the real schemas: a request gives every value of its answer."""
    rows = (BFCL / "simple.jsonl").read_text(encoding="utf-8").splitlines()
    missing, total = [], 0
    for line in rows[::6]:
        schema = json.loads(line)["schema"]
        asked = {"schema": schema, "count": 4}
        for query in write_queries(asked)["queries"]:
            answer = write_answer({**asked, "query": query})
            total += 1
            missing += [(query, found) for found in [ungrounded_values(query, answer, schema)] if found]
    assert total > 200
    assert len(missing) <= total * 0.02, missing
