"""Requests in words: apart from the teacher's, true to their answers, the same for the same seed."""

import json
import random
import re

import pytest

from schema_student.core.resources import DATA_DIR
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.query_dsl import build_schema, draw_operators, operator_catalog, read_dsl
from schema_student.teacher.embedded.bank import KINDS, load_bank, templates_for, words_of
from schema_student.teacher.embedded.objects import word_object
from schema_student.teacher.embedded.requests import draw_request
from schema_student.teacher.embedded.timeframes import period

LEXICON = json.loads((DATA_DIR / "lexicon.json").read_text(encoding="utf-8"))
BANKS = ("teacher", "pretraining")
PREPOSITIONS = ("", "of", "for", "with", "in")  # alone between slots they are no wording of its own


def templates(bank):
    """Every template of a bank that holds words of its own, not only slots and punctuation."""
    if isinstance(bank, dict):
        return set().union(
            *(templates(value) for key, value in bank.items() if key not in ("numbers", "quotes", "endings"))
        )
    if isinstance(bank, list):
        return {text for text in bank if "{" in text and _letters(_without_slots(text)) not in PREPOSITIONS}
    return set()


def _letters(text):
    return "".join(filter(str.isalpha, text))


def _without_slots(text):
    return re.sub(r"\{\w+\}", "", text)


def normalized(text):
    """A template's words and slots: case, spaces and punctuation make no other template of it."""
    return " ".join(re.findall(r"\{\w+\}|\w+", text.casefold()))


def schema_of(index, seed=0):
    spec = LEXICON[index % len(LEXICON)]
    operators = draw_operators(list(operator_catalog()), spec, random.Random(seed))
    return build_schema(spec, operators)


def test_the_teacher_and_pretraining_share_no_template():
    teacher, pretraining = (templates(load_bank(name)) for name in BANKS)
    assert len(teacher) > 100 and len(pretraining) > 1500
    assert {normalized(text) for text in teacher} & {normalized(text) for text in pretraining} == set()


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("entry", operator_catalog(), ids=lambda entry: entry["const"])
def test_pretraining_says_every_operator_in_many_ways(entry, language):
    groups = load_bank("pretraining")[language]["operators"][entry["const"]]
    for kind in entry["types"]:
        for value in (True, False) if kind == "boolean" else (None,):
            phrases = templates_for(groups, kind, value)
            assert len(set(phrases)) == len(phrases) >= 25
            slots = ["{f}"] if kind == "boolean" else ["{f}", "{v}"]
            assert all(sorted(re.findall(r"\{.*?\}", phrase)) == slots for phrase in phrases)


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("listed", [False, True])
def test_no_phrase_of_pretraining_means_two_operators(language, listed):
    """A list operator may share one with another ("city: Rome"): the list tells them apart."""
    operators = load_bank("pretraining")[language]["operators"]
    names = [entry["const"] for entry in operator_catalog() if entry["list"] == listed]
    for kind in ("text", "number", "date", "true", "false"):
        said = [p for name in names for p in operators[name].get(kind, operators[name].get("any", ()))]
        assert len(set(said)) == len(said)


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_drawn_answer_is_valid_and_echoes_its_request(bank, language, kind):
    for seed in range(60):
        schema = schema_of(seed, seed)
        spec, rng = read_dsl(schema), random.Random(seed)
        request = draw_request(spec, load_bank(bank), language, kind, "2026-03-31", rng, lambda r: "Quito")
        verdict = judge(json.dumps(request.answer), compile_schema(schema))
        assert verdict.schema_valid, (request, verdict.violations)
        assert request.answer["prompt"] == request.query
        assert ("refusal" in request.answer) == (kind != "answerable")
        assert "{" not in request.query


def test_the_same_seed_draws_the_same_request():
    spec, bank = read_dsl(schema_of(3)), load_bank("teacher")
    first, second = (draw_request(spec, bank, "en", "answerable", "2026-01-05", random.Random(9)) for _ in range(2))
    assert first == second


def test_a_spec_is_read_back_from_the_schema_alone():
    schema = schema_of(0)
    spec = read_dsl(schema)
    assert [field.const for field in spec.fields] == [field["const"] for field in LEXICON[0]["fields"]]
    assert [field.type for field in spec.fields] == [field["type"] for field in LEXICON[0]["fields"]]
    assert 4 <= len(spec.operators) <= 7
    assert spec.noun == LEXICON[0]["noun"]


@pytest.mark.parametrize(
    ("idea", "expected"),
    [
        ("last_month", ("2026-02-01", "2026-02-28")),
        ("this_month", ("2026-03-01", "2026-03-31")),
        ("last_year", ("2025-01-01", "2025-12-31")),
        ("today", ("2026-03-31", "2026-03-31")),
        ("last_days", ("2026-03-24", "2026-03-31")),
    ],
)
def test_relative_periods_count_from_the_current_date(idea, expected):
    import datetime

    start, end = period(idea, (datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)), datetime.date(2026, 3, 31), 7)
    assert (start.isoformat(), end.isoformat()) == expected


def test_a_missing_field_is_never_one_of_the_schema():
    schema = schema_of(5)
    spec, bank = read_dsl(schema), load_bank("teacher")
    known = {label for field in spec.fields for names in field.labels.values() for label in names}
    for seed in range(80):
        reason = draw_request(spec, bank, "en", "missing_field", "2026-01-01", random.Random(seed)).answer["refusal"][
            "reason"
        ]
        assert reason.removeprefix("no field for ") not in known


def test_a_refusal_suggests_fields_of_the_schema():
    schema = schema_of(7)
    spec = read_dsl(schema)
    request = draw_request(spec, load_bank("teacher"), "fr", "missing_field", "2026-01-01", random.Random(1))
    assert spec.fields[0].const in request.answer["refusal"]["suggestion"]


def test_an_object_request_says_every_value_of_its_answer():
    schema = {
        "title": "book_table",
        "type": "object",
        "properties": {"guests": {"type": "integer"}, "city": {"type": "string"}},
    }
    for bank in BANKS:
        for seed in range(30):
            text = word_object({"guests": 48, "city": "Quito"}, schema, load_bank(bank), "en", random.Random(seed))
            assert "48" in text and "Quito" in text


@pytest.mark.parametrize(
    ("name", "words"), [("unitPrice", "unit price"), ("shop.unit_price", "shop unit price"), ("x", "x")]
)
def test_names_are_said_as_words(name, words):
    assert words_of(name) == words


def test_a_schema_that_refers_to_itself_is_worded_and_ends():
    schema = {"type": "object", "properties": {"node": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
    text = word_object({"node": "Quito"}, schema, load_bank("teacher"), "en", random.Random(1))
    assert "Quito" in text
