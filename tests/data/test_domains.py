"""Domains: catalog, lexicon and the teacher's phrases are sound, and schemas built of them hold what they say."""

from __future__ import annotations

import copy
import itertools
import json
import random
from contextlib import contextmanager

import jsonschema_rs
import pytest

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl
from schema_student.core.paths import paths
from schema_student.core.resources import DATA_DIR
from schema_student.core.settings import default_settings
from schema_student.data.domain_prompts import SHIPPED, read_domain_prompts
from schema_student.data.domains import schema_row, seed_prompts, spec_problem, write_domain_specs, write_schemas
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.query_dsl import build_schema, draw_operators, operator_catalog, read_dsl
from schema_student.schema.rendering import completion_text
from schema_student.teacher.embedded.bank import KINDS, load_bank, templates_for
from schema_student.teacher.embedded.requests import OPERATOR_WORDS, draw_request
from schema_student.teacher.faults import TeacherFailure
from schema_student.teacher.roles import FORMATS

CATALOG = operator_catalog()
LEXICON = json.loads((DATA_DIR / "lexicon.json").read_text(encoding="utf-8"))
LANGUAGES = ("en", "fr")
SPEC = {
    "schema_id": "hotel",
    "domain": "hotel",
    "noun": {"en": "bookings", "fr": "réservations"},
    "description": "Bookings of a hotel.",
    "fields": [
        {"const": "guest", "description": "guest / client", "type": "string", "examples": ["Anna"]},
        {"const": "rate", "description": "night rate / tarif", "type": "number"},
        {"const": "nights", "description": "nights / nuits", "type": "integer"},
        {"const": "paid", "description": "payment / paiement", "type": "boolean"},
        {"const": "arrival", "description": "arrival / arrivée", "type": "date"},
        {
            "const": "room",
            "description": "room type / chambre",
            "type": "enum",
            "enum": [{"const": "single", "description": "single / simple"}, {"const": "suite", "description": "suite"}],
        },
    ],
    "example_queries": ["Bookings of Anna"],
}
OPERATORS = [
    {"const": name, "canonical": entry["const"], "description": entry["description"]}
    for name, entry in zip(("is", "like", "one_of", "over"), (CATALOG[i] for i in (0, 2, 3, 8)), strict=True)
]
SCHEMA = build_schema(SPEC, OPERATORS)


def ast(*conditions, **rest):
    """An answer with one step of conditions (field, operator, value)."""
    keys = ("field", "operator", "value")
    step = {"name": "a", "conditions": [dict(zip(keys, c, strict=True)) for c in conditions], "description": "b"}
    return {"prompt": "p", "steps": [step], **rest}


def verdict(value):
    return judge(completion_text(value), compile_schema(SCHEMA))


REFUSAL = {"reason": "no field for the moon", "suggestion": "ask by guest"}
GOOD = {
    "string": ast(("guest", "is", "Anna")),
    "number": ast(("rate", "over", 20.5)),
    "integer": ast(("nights", "over", 2)),
    "boolean": ast(("paid", "is", False)),
    "date": ast(("arrival", "is", "2024-02-29")),
    "enum": ast(("room", "is", "suite")),
    "list of strings": ast(("guest", "one_of", ["Anna", "Tom"])),
    "list of numbers": ast(("rate", "one_of", [1, 2.5])),
    "list of an enum": ast(("room", "one_of", ["suite"])),
    "two conditions": ast(("guest", "is", "Anna"), ("paid", "is", True)),
    "timeframe": ast(("paid", "is", True), timeframe={"start": "2024-01-01", "end": "2024-01-01"}),
    "refusal": {"prompt": "p", "refusal": REFUSAL},
}
BAD = {
    "a list operator without a list": (ast(("guest", "one_of", "Anna")), "/steps/0/conditions/0/value"),
    "a list without a list operator": (ast(("guest", "is", ["Anna"])), "/steps/0/conditions/0/value"),
    "an empty list": (ast(("guest", "one_of", [])), "/steps/0/conditions/0/value"),
    "a number as a string": (ast(("rate", "over", "20")), "/steps/0/conditions/0/value"),
    "half a night": (ast(("nights", "over", 2.5)), "/steps/0/conditions/0/value"),
    "a boolean as a word": (ast(("paid", "is", "yes")), "/steps/0/conditions/0/value"),
    "a day that does not exist": (ast(("arrival", "is", "2023-02-29")), "/steps/0/conditions/0/value"),
    "a value outside the enum": (ast(("room", "is", "barn")), "/steps/0/conditions/0/value"),
    "a list with one value outside": (ast(("room", "one_of", ["suite", "barn"])), "/steps/0/conditions/0/value/1"),
    "null": (ast(("guest", "is", None)), "/steps/0/conditions/0/value"),
    "an unknown field": (ast(("moon", "is", "full")), "/steps/0/conditions/0/field"),
    "a canonical name that is not the schema's": (ast(("rate", "gt", 20)), "/steps/0/conditions/0/operator"),
    "no conditions": (ast(), "/steps/0/conditions"),
    "no steps": ({"prompt": "p", "steps": []}, "/steps"),
    "neither steps nor refusal": ({"prompt": "p"}, ""),
    "an empty prompt": (ast(("guest", "is", "Anna")) | {"prompt": ""}, "/prompt"),
    "end before start": (
        ast(("paid", "is", True), timeframe={"start": "2024-01-02", "end": "2024-01-01"}),
        "/timeframe",
    ),
    "a timeframe without end": (ast(("paid", "is", True), timeframe={"start": "2024-01-02"}), "/timeframe"),
    "a timeframe of no date": (
        ast(("paid", "is", True), timeframe={"start": "May", "end": "June"}),
        "/timeframe/start",
    ),
    "a refusal beside steps": (ast(("guest", "is", "Anna"), refusal=REFUSAL), "/steps"),
    "a refusal without suggestion": ({"prompt": "p", "refusal": {"reason": "r"}}, "/refusal"),
    "an unexpected property": (ast(("guest", "is", "Anna"), limit=3), ""),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_schema_takes(name):
    assert verdict(GOOD[name]).schema_valid, verdict(GOOD[name]).violations


@pytest.mark.parametrize("name", BAD)
def test_the_schema_refuses_and_says_where(name):
    value, path = BAD[name]
    found = verdict(value)
    assert not found.schema_valid
    assert any(v.path.startswith(path) for v in found.violations), found.violations


def test_the_date_order_is_one_named_rule():
    value, _ = BAD["end before start"]
    assert [v.keyword for v in verdict(value).violations] == ["x-rules/date_order"]


def test_a_schema_does_not_leak_canonical_names():
    assert "canonical" not in json.dumps(SCHEMA)
    assert read_dsl(SCHEMA).operators == {o["canonical"]: o["const"] for o in OPERATORS}


def test_building_a_schema_leaves_its_inputs_alone():
    spec, operators = copy.deepcopy(SPEC), copy.deepcopy(OPERATORS)
    build_schema(spec, operators)["x-noun"]["en"] = "changed"
    assert (spec, operators) == (SPEC, OPERATORS)


def test_a_schema_without_list_operators_takes_no_list():
    schema = compile_schema(build_schema(SPEC, [OPERATORS[0]]))
    assert not judge(completion_text(ast(("guest", "is", ["Anna"]))), schema).schema_valid


# Operators


def test_the_catalog_can_be_told_apart():
    assert [entry["const"] for entry in CATALOG] == list(OPERATOR_WORDS["en"])
    assert len({entry["description"] for entry in CATALOG}) == len(CATALOG)
    synonyms = [name for entry in CATALOG for name in entry["synonyms"]]
    assert len(set(synonyms)) == len(synonyms)
    assert all(6 <= len(entry["synonyms"]) <= 8 for entry in CATALOG)
    assert {entry["const"] for entry in CATALOG if entry["list"]} == {"in", "not_in"}


@pytest.mark.parametrize("spec", [SPEC, *LEXICON[::9]], ids=lambda spec: spec["schema_id"])
def test_drawn_operators_serve_every_field_and_leave_something_to_refuse(spec):
    types = {field["type"] for field in spec["fields"]}
    by_name = {entry["const"]: entry for entry in CATALOG}
    sizes = set()
    for seed in range(60):
        drawn = draw_operators(CATALOG, spec, random.Random(seed))
        names = {operator["canonical"] for operator in drawn}
        sizes.add(len(drawn))
        assert len({operator["const"] for operator in drawn}) == len(names) == len(drawn)
        assert all(operator["const"] in by_name[operator["canonical"]]["synonyms"] for operator in drawn)
        assert names & {"equals", "like"}
        assert types <= {kind for name in names for kind in by_name[name]["types"]}
        dsl = read_dsl(build_schema(spec, drawn))
        bank = load_bank("teacher")
        request = draw_request(dsl, bank, "en", "unsupported_operator", "2025-01-31", random.Random(seed))
        assert "refusal" in request.answer
    assert sizes == {4, 5, 6, 7}


def test_operators_are_drawn_by_seed_and_schema_alone():
    assert schema_row(LEXICON[0], 1) == schema_row(LEXICON[0], 1)
    assert schema_row(LEXICON[0], 1).operators != schema_row(LEXICON[0], 2).operators


# The lexicon


def test_the_lexicon_has_36_domains_of_many_words():
    assert len(LEXICON) == len({spec["schema_id"] for spec in LEXICON}) == 36
    consts = [field["const"] for spec in LEXICON for field in spec["fields"]]
    assert len(set(consts)) > 0.9 * len(consts)
    prompts = read_domain_prompts(SHIPPED)
    assert [prompt.text.split(":")[0] for prompt in prompts] == [spec["domain"] for spec in LEXICON]


@pytest.mark.parametrize("spec", LEXICON, ids=lambda spec: spec["schema_id"])
def test_a_domain_of_the_lexicon_is_sound(spec):
    assert judge(completion_text(spec), compile_schema(FORMATS["domain_spec"])).schema_valid
    assert spec_problem(spec) == ""
    types = {field["type"] for field in spec["fields"]}
    assert {"string", "enum", "boolean"} <= types
    assert types & {"number", "integer"}
    assert 6 <= len(spec["fields"]) <= 9
    jsonschema_rs.meta.validate(schema_row(spec, 13).schema)


@pytest.mark.parametrize("spec", LEXICON, ids=lambda spec: spec["schema_id"])
def test_fields_and_values_of_a_domain_can_be_told_apart_in_both_languages(spec):
    dsl = read_dsl(schema_row(spec, 13).schema)
    for language in LANGUAGES:
        labels = [label for field in dsl.fields for label in field.labels[language]]
        choices = [label for field in dsl.fields for _, names in field.choices for label in names[language]]
        examples = [value.lower() for field in dsl.fields if field.type == "string" for value in field.examples]
        words = [word.lower() for word in labels + choices] + examples
        assert sorted(words) == sorted(set(words))
        assert all(1 <= len(label.split()) <= 4 for label in labels)


@pytest.mark.parametrize("spec", LEXICON, ids=lambda spec: spec["schema_id"])
def test_what_the_teacher_asks_of_a_domain_has_a_valid_answer(spec):
    schema = schema_row(spec, 13).schema
    compiled, dsl, bank = compile_schema(schema), read_dsl(schema), load_bank("teacher")
    rng = random.Random(5)
    for language, kind in itertools.product(LANGUAGES, KINDS):
        for _ in range(4):
            request = draw_request(dsl, bank, language, kind, "2025-06-15", rng)
            found = judge(completion_text(request.answer), compiled)
            assert found.schema_valid, (request, found.violations)
            assert "{" not in request.query


# The teacher's phrases

TYPE_CLASSES = {"string": "text", "enum": "text", "number": "number", "integer": "number", "date": "date"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry["const"])
def test_every_operator_has_phrasings_for_each_of_its_types(entry, language):
    templates = load_bank("teacher")[language]["operators"][entry["const"]]
    for kind in entry["types"]:
        for value in (True, False) if kind == "boolean" else (None,):
            phrases = templates_for(templates, kind, value)
            assert len(set(phrases)) == len(phrases) >= 3
            assert all("{f}" in phrase for phrase in phrases)
            assert kind == "boolean" or all(phrase.count("{v}") == 1 for phrase in phrases)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_phrase_means_two_operators(language):
    operators = load_bank("teacher")[language]["operators"]
    for kind in ("text", "number", "date", "true", "false"):
        said = [p for name in operators for p in operators[name].get(kind, operators[name].get("any", ()))]
        assert len(set(said)) == len(said)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_schemas_lack_is_said_in_words_of_its_own(language):
    bank = load_bank("teacher")[language]
    assert len(set(bank["missing_fields"])) == len(bank["missing_fields"]) >= 40
    assert len(set(bank["values"])) >= 30


# d_01 and d_02


def settings_in(folder, **changes):
    return default_settings(output_dir=str(folder), teacher_model="embedded-teacher", **changes)


def test_the_embedded_teacher_gives_specs_and_they_become_schemas(tmp_path, capsys):
    settings = settings_in(tmp_path, domains=14)
    write_domain_specs(settings)
    write_schemas(settings)
    specs, schemas = read_jsonl(paths(settings).domain_specs), read_jsonl(paths(settings).schemas)
    assert [row["schema_id"] for row in specs] == [spec["schema_id"] for spec in LEXICON[:14]]
    for spec, row in zip(specs, schemas, strict=True):
        assert spec["source_prompt"].startswith(spec["domain"])
        assert {key: row[key] for key in spec if key != "source_prompt"} == {
            k: v for k, v in spec.items() if k != "source_prompt"
        }
        assert json.loads(row["schema_json"]) == row["schema"] == build_schema(spec, row["operators"])
    capsys.readouterr()
    write_domain_specs(settings)
    write_schemas(settings)
    assert capsys.readouterr().out.count("done already") == 2


def test_a_killed_step_goes_on_after_its_last_whole_row(tmp_path):
    settings = settings_in(tmp_path, domains=5)
    targets = [paths(settings).domain_specs, paths(settings).schemas]
    write_domain_specs(settings)
    write_schemas(settings)
    whole = [target.read_bytes() for target in targets]
    for target, step in zip(targets, (write_domain_specs, write_schemas), strict=True):
        meta = target.with_name(target.name + ".meta.json")
        stamp = json.loads(meta.read_text())
        keep = {key: stamp[key] for key in ("settings", "seed", "inputs", "teacher", "domains") if key in stamp}
        target.with_name(target.name + ".partial.json").write_text(json.dumps(keep))
        meta.unlink()
        target.write_bytes(target.read_bytes()[: len(target.read_bytes()) * 2 // 3])
        step(settings)
    assert [target.read_bytes() for target in targets] == whole


def test_more_domains_than_the_embedded_teacher_knows_are_refused(tmp_path):
    with pytest.raises(UserError, match="knows 36; give --domains 36 or less"):
        write_domain_specs(settings_in(tmp_path, domains=37))


def test_seeds_beyond_the_shipped_ones_are_new_variants():
    seeds = [prompt.text for prompt in seed_prompts(read_domain_prompts(SHIPPED), 80)]
    assert len(set(seeds)) == 80
    assert seeds[36].startswith(seeds[0])


class ScriptedTeacher:
    """Answers with the given values in order."""

    def __init__(self, answers, asked):
        self.info = {"model": "scripted"}
        self.answers, self.asked = answers, asked

    def ask_many(self, asks, progress=""):
        self.asked += [payload for _, payload in asks]
        return [self.answers[payload["index"]] for _, payload in asks]


def script(monkeypatch, answers):
    """Let these answers be given; returns what is asked, as it is."""
    asked = []

    @contextmanager
    def opened(settings, choice):
        yield ScriptedTeacher(answers, asked)

    monkeypatch.setattr("schema_student.data.domains.open_teacher", opened)
    return asked


def broken(change):
    spec = copy.deepcopy(SPEC)
    change(spec["fields"])
    return spec


UNUSABLE = {
    "guest is there twice": broken(lambda fields: fields.append(dict(fields[0]))),
    "value single of the field room is there twice": broken(
        lambda fields: fields[5]["enum"].append(fields[5]["enum"][0])
    ),
    "has type enum but its enum is missing": broken(lambda fields: fields[5].pop("enum")),
    "has type string but its enum": broken(lambda fields: fields[0].update(enum=fields[5]["enum"])),
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_an_unusable_spec_says_why(reason):
    assert reason in spec_problem(UNUSABLE[reason])


def test_unusable_specs_are_left_out_and_twin_names_numbered(tmp_path, monkeypatch, capsys):
    script(monkeypatch, [SPEC, UNUSABLE["guest is there twice"], TeacherFailure("domain_spec", "timed out"), SPEC])
    settings = settings_in(tmp_path, domains=4)
    write_domain_specs(settings)
    assert [row["schema_id"] for row in read_jsonl(paths(settings).domain_specs)] == ["hotel", "hotel_v2"]
    assert capsys.readouterr().out.count("rejected:") == 2


def test_the_teacher_is_asked_by_own_prompts_and_named_domains_keep_their_names(tmp_path, monkeypatch):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "guests", "domain": "inns"}\n{"prompt": "rooms"}\n')
    asked = script(monkeypatch, [SPEC, SPEC])
    settings = settings_in(tmp_path, domain_prompts=str(tmp_path / "prompts.jsonl"))
    write_domain_specs(settings)
    assert [payload["seed_prompt"] for payload in asked] == ["inns: guests", "rooms"]
    assert [row["domain"] for row in read_jsonl(paths(settings).domain_specs)] == ["inns", "hotel"]


def test_no_usable_spec_at_all_is_an_error(tmp_path, monkeypatch):
    script(monkeypatch, [UNUSABLE["guest is there twice"]] * 2)
    with pytest.raises(UserError, match=r"no valid domain specification .* guest is there twice"):
        write_domain_specs(settings_in(tmp_path, domains=2))
