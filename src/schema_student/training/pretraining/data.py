"""Draw endless schemas, requests and answers that the embedded student learns from.

The query DSL, lists of named choices, and plain objects as tools and APIs have them, over words of which up to half are
invented by splicing two real ones, so that names must be copied from the prompt and not recalled. The phrasings come
from data/phrases_pretraining.json only; the embedded teacher's stay unseen, so that SFT has something real to teach.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from schema_student.core.resources import DATA_DIR
from schema_student.schema.prompts import render_prompt
from schema_student.schema.query_dsl import (
    build_schema,
    is_query_dsl,
    labels_of,
    operator_catalog,
    operators_for,
    read_dsl,
)
from schema_student.schema.rendering import completion_text
from schema_student.teacher.embedded.bank import Bank, Request, finish, join, load_bank
from schema_student.teacher.embedded.objects import word_object
from schema_student.teacher.embedded.requests import draw_request
from schema_student.teacher.embedded.timeframes import PERIODS
from schema_student.teacher.embedded.values import draw_date, draw_number

Rng = random.Random
Sampler = Callable[[Rng], Any]

# Words that change no meaning wherever they stand: no negation, no comparison, no time.
FILLERS = (
    "où a an the of to in on at by for with and is are be as it its that which whose where when who any all this one "
    "given i you me we us want need would like could can have has do does please show see give there those them "
    "if so just some le la les un une des du de et est sont dans par pour avec que qui dont au aux en ce cet "
    "cette je tu nous vous veux voudrais peux donne montre voir ont a s'il il elle y leur moi"
).split()
SIGNS = "!!!%$€#@+*&/()[]_-–—…’'\"«»ùÀÉÊçœïëæßñöü"  # noqa: RUF001

# Periods that count from the current date are as frequent as others: seldom asked for, they stayed unlearned.
EVENLY = dict.fromkeys(PERIODS, 1.0)

# Words that several fields of a type share: "order date" and "delivery date" must be told apart by what is left.
HEADS = {
    "en": {
        "string": "name title city code place",
        "number": "price weight rate total length",
        "integer": "count number years minutes rank",
        "boolean": "option access check",
        "date": "date date day",
        "enum": "type kind class state level",
    },
    "fr": {
        "string": "nom titre ville code lieu",
        "number": "prix poids taux total longueur",
        "integer": "nombre compte rang minutes",
        "boolean": "option droit contrôle",
        "date": "date date jour",
        "enum": "type genre classe état niveau",
    },
}

# ---------------------------------------------------------------------------------------------------------- words


class Words:
    """Draws real and invented words. An invented one is the head of a real word and the tail of another.

    `hardness` says how hard everything drawn with them is, from 0 (real single words, few fields, no fillers, no
    refusals) to 1; docs/LOG.md says what starting easy brought and what it did not.
    """

    def __init__(self, hardness: float = 1.0) -> None:
        self.hardness = hardness
        pools = json.loads((DATA_DIR / "pretraining_words.json").read_text(encoding="utf-8"))
        self.pools = {name: text.split() for name, text in pools.items()}
        self.en = self.pools["nouns"] + self.pools["adjectives"]
        self.fr = self.pools["french_nouns"] + self.pools["french_adjectives"]

    def word(self, rng: Rng, language: str = "en") -> str:
        pool = self.en if language == "en" else self.fr
        return self.splice(rng, pool) if rng.random() < 0.5 * self.hardness else rng.choice(pool)

    def splice(self, rng: Rng, pool: list[str]) -> str:
        head, tail = rng.choice(pool), rng.choice(pool)
        return head[: rng.randint(2, max(2, len(head) - 1))] + tail[-rng.randint(2, max(2, len(tail) - 1)) :]

    def label(self, rng: Rng, language: str = "en", longest: int = 2) -> str:
        length = rng.choice((1, 2, 2, longest)) if rng.random() < 0.75 * self.hardness else 1
        return " ".join(self.word(rng, language) for _ in range(length))

    def field_label(self, kind: str, rng: Rng, language: str = "en") -> str:
        """Draw what people call a field: often a word that other fields of its type share, with one of its own."""
        if rng.random() >= 0.5 * self.hardness:
            return self.label(rng, language)
        head, own = rng.choice(HEADS[language][kind].split()), self.word(rng, language)
        if language == "en":
            return f"{own} {head}"
        return rng.choice((f"{head} de {own}", f"{head} de {own}", f"{head} {own}", f"{own} {head}"))

    def value(self, rng: Rng) -> str:
        """Draw a free string value: a name, a place, some words, a code."""
        idea = rng.random()
        if idea < 0.25:
            return rng.choice(self.pools["names"] + self.pools["places"])
        if idea < 0.40:
            return f"{self.word(rng)} {self.word(rng)}".title()
        if idea < 0.50:
            return (
                "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWX") for _ in range(rng.randint(1, 3)))
                + rng.choice(("", "-"))
                + str(rng.randint(1, 999))
            )
        text = self.word(rng, rng.choice(("en", "en", "fr")))
        return text if rng.random() < 0.5 else text.capitalize()

    def filler(self, rng: Rng) -> str:
        """Draw one to four filler words; now and then a sign or a rare letter."""
        parts = [
            rng.choice(FILLERS) if rng.random() < 0.8 else self.word(rng) for _ in range(rng.choice((1, 1, 2, 3, 4)))
        ]
        if rng.random() < 0.1:
            parts[rng.randrange(len(parts))] += "".join(rng.choice(SIGNS) for _ in range(rng.choice((1, 1, 1, 2, 3))))
        return " ".join(parts)


def noisy(bank: Bank, words: Words, rng: Rng) -> Bank:
    """Put fillers around a third of the bank's templates, drawn anew for every group.

    Without fillers a student fails at the first phrase that it has not seen; with them it learns to copy any word
    and to look for the words that the schema has.
    """

    def around(template: str) -> str:
        if "{" not in template or rng.random() > 0.35 * words.hardness:
            return template
        filler = words.filler(rng)
        return f"{filler}{rng.choice((' ', ' ', ', '))}{template}" if rng.random() < 0.75 else f"{template} {filler}"

    def walk(part: Any, name: str = "") -> Any:
        if isinstance(part, dict):
            return {key: walk(value, key) for key, value in part.items()}
        return (
            [around(template) for template in part]
            if name not in ("quotes", "endings", "missing_fields", "values")
            else part
        )

    return {language: walk(phrases) for language, phrases in bank.items()}


# ------------------------------------------------------------------------------------------- schemas of the query DSL


def draw_dsl_schema(words: Words, rng: Rng) -> dict[str, Any]:
    """Draw a query-DSL schema; the names of operators are the catalog's or invented."""
    fields: list[dict[str, Any]] = []
    used: set[str] = set()
    count = rng.randint(3, 5 + round(4 * words.hardness))
    while len(fields) < count:
        kind = rng.choices(["string", "number", "integer", "boolean", "date", "enum"], [30, 16, 12, 10, 10, 22])[0]
        english = words.field_label(kind, rng)
        const = english.replace(" ", "_").lower()
        if const in used:
            continue
        used.add(const)
        shown = words.field_label(kind, rng) if rng.random() < 0.6 else english
        french = words.field_label(kind, rng, "fr")
        field: dict[str, Any] = {"const": const, "description": f"{shown} / {french}", "type": kind}
        if field["type"] == "enum":
            field["enum"] = _draw_choices(words, rng)
        fields.append(field)
    noun = {"en": words.label(rng), "fr": words.label(rng, "fr")}
    name = words.label(rng).replace(" ", "_").lower()
    spec = {
        "schema_id": name,
        "domain": name.replace("_", " "),
        "noun": noun,
        "description": _dsl_description(words, noun, rng),
        "fields": fields,
    }
    while True:
        schema = build_schema(spec, _draw_operators(words, rng))
        read = read_dsl(schema)
        if all(operators_for(field, read.operators) for field in read.fields):
            return schema


def _dsl_description(words: Words, noun: dict[str, str], rng: Rng) -> str:
    return rng.choice(
        (
            f"Search {noun['en']}",
            f"{noun['en'].capitalize()} of a {words.label(rng)}",
            f"{noun['en']} / {noun['fr']}",
            f"Requests over {noun['en']} and {words.word(rng)}",
        )
    )


def _draw_choices(words: Words, rng: Rng) -> list[dict[str, str]]:
    choices = {}
    for _ in range(rng.randint(2, 3 + round(words.hardness))):
        english = words.label(rng, longest=1)
        shown = words.label(rng, longest=1) if rng.random() < 0.5 else english
        choices[english.replace(" ", "_").lower()] = f"{shown} / {words.label(rng, 'fr', longest=1)}"
    while len(choices) < 2:
        choices[words.word(rng).lower()] = words.word(rng)
    return [{"const": const, "description": description} for const, description in choices.items()]


def _draw_operators(words: Words, rng: Rng) -> list[dict[str, str]]:
    catalog = {entry["const"]: entry for entry in operator_catalog()}
    first = [rng.choice(("equals", "equals", "like"))]
    chosen = first + rng.sample([c for c in catalog if c not in first], rng.randint(2, 4 + round(2 * words.hardness)))
    rng.shuffle(chosen)
    operators: dict[str, dict[str, str]] = {}
    for canonical in chosen:
        known = rng.random() >= 0.25 * words.hardness
        name = rng.choice(catalog[canonical]["synonyms"]) if known else words.word(rng).lower()
        if name not in operators:
            operators[name] = {"const": name, "canonical": canonical, "description": catalog[canonical]["description"]}
    return list(operators.values())


# ----------------------------------------------------------------------------------------- schemas of plain objects


def draw_object_schema(words: Words, rng: Rng) -> tuple[dict[str, Any], Sampler]:
    """Draw a schema as tools and APIs have them, and a sampler of its instances."""
    schema, sample = _draw_object(words, rng, depth=0)
    verb, noun = rng.choice(words.pools["verbs"]), words.label(rng)
    name = f"{verb}_{noun.replace(' ', '_')}"
    if rng.random() < 0.2:
        name = f"{words.word(rng)}.{name}"
    heading = {"title": name} if rng.random() < 0.9 else {}
    if rng.random() < 0.85:
        tail = rng.choice(
            (
                "",
                f" of a {words.label(rng)}",
                f" for the given {words.word(rng)}",
                f" based on its {words.word(rng)} and {words.word(rng)}",
                f" in a specific {words.word(rng)}",
            )
        )
        heading["description"] = f"{verb.capitalize()} {rng.choice(('the ', 'a ', ''))}{noun}{tail}" + rng.choice(
            (".", "", ".")
        )
    return heading | schema, sample


def _draw_object(words: Words, rng: Rng, depth: int) -> tuple[dict[str, Any], Sampler]:
    names: dict[str, tuple[str, tuple[dict[str, Any], Sampler]]] = {}
    most = 3 + round(3 * words.hardness)
    wished = rng.choices((1, 2, 3, 4, 5, 6), (14, 24, 28, 18, 10, 6))[0] if depth == 0 else rng.randint(1, 3)
    for _ in range(min(wished, most)):
        label = words.label(rng)
        names[_spell(label, rng)] = (label, _draw_type(words, rng, depth))
    required = [name for name in names if rng.random() < 0.65] or [next(iter(names))]
    properties = {name: _described(schema, label, words, rng) for name, (label, (schema, _)) in names.items()}

    def sample(draw: Rng) -> dict[str, Any]:
        return {name: names[name][1][1](draw) for name in names if name in required or draw.random() < 0.45}

    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}, sample


def _spell(label: str, rng: Rng) -> str:
    parts = label.lower().split()
    style = rng.random()
    if style < 0.08:
        return rng.choice("abcdefghkmnpqrstxyz")
    return parts[0] + "".join(part.capitalize() for part in parts[1:]) if style < 0.2 else "_".join(parts)


def _described(schema: dict[str, Any], label: str, words: Words, rng: Rng) -> dict[str, Any]:
    if rng.random() < 0.2:
        return schema
    text = rng.choice(
        (
            f"The {label} of the {words.word(rng)}",
            f"{label.capitalize()}",
            f"The {label}",
            f"{words.label(rng)} of {words.label(rng)}",
            f"The {label} to {rng.choice(words.pools['verbs'])}",
            f"{label}, in {words.word(rng)}",
        )
    )
    return schema | {"description": text + rng.choice((".", ""))}


def _draw_type(words: Words, rng: Rng, depth: int) -> tuple[dict[str, Any], Sampler]:
    kinds = ["string", "integer", "number", "boolean", "enum", "date", "list", "object", "objects"]
    nested = words.hardness if depth == 0 else 0
    weights = [32, 20, 10, 10, 12, 5, 12, 5 * nested, 3 * nested] if depth == 0 else [36, 22, 12, 12, 12, 4, 6, 0, 0]
    kind = rng.choices(kinds, weights)[0]
    if kind == "string":
        return {"type": "string"}, words.value
    if kind == "date":
        return {"type": "string", "format": "date"}, lambda draw: draw_date(draw).isoformat()
    if kind in ("integer", "number"):
        sign = -1 if rng.random() < 0.1 else 1
        bounds = {"minimum": 0, "maximum": 10000} if sign == 1 and rng.random() < 0.1 else {}
        return {"type": kind} | bounds, lambda draw: draw_number(kind, draw) * (sign if draw.random() < 0.5 else 1)
    if kind == "boolean":
        default = {"default": False} if rng.random() < 0.15 else {}
        return {"type": "boolean"} | default, lambda draw: draw.random() < 0.6
    if kind == "enum":
        values = list(
            dict.fromkeys(
                _spell(words.label(rng, longest=1), rng) if rng.random() < 0.8 else words.value(rng)
                for _ in range(rng.randint(2, 5))
            )
        )
        return {"type": "string", "enum": values}, lambda draw: draw.choice(values)
    if kind == "object":
        return _draw_object(words, rng, depth + 1)
    inner, sampler = _draw_object(words, rng, depth + 1) if kind == "objects" else _draw_type(words, rng, 2)
    return {"type": "array", "items": inner}, lambda draw: [sampler(draw) for _ in range(draw.choice((1, 2, 2, 3)))]


# ------------------------------------------------------------------------------------------------ names behind words


def draw_lookup(words: Words, bank: Bank, rng: Rng, pairs: int) -> tuple[dict[str, Any], list[Request]]:
    """Draw a list of named choices, and requests that call several of them by other words than their names.

    In the query DSL two tokens of a hundred must be found behind a description; here it is every second one.
    """
    options: dict[str, str] = {}
    for _ in range(rng.randint(3, 5 + round(5 * words.hardness))):
        options[_spell(words.label(rng), rng)] = f"{words.label(rng)} / {words.label(rng, 'fr')}"
    choices = [{"const": name, "description": called} for name, called in options.items()]
    key = _spell(words.label(rng), rng)
    schema = {
        "title": _spell(words.label(rng), rng),
        "type": "object",
        "properties": {key: {"type": "array", "items": {"oneOf": choices}}},
        "required": [key],
        "additionalProperties": False,
    }
    requests = []
    for _ in range(pairs):
        language = rng.choice(("en", "fr"))
        picked = rng.sample(list(options), min(len(options), rng.randint(2, 6)))
        called = [options[name].split(" / ")[language == "fr"] for name in picked]
        query = join(called, rng.choice(bank[language]["and"]))
        if rng.random() < 0.15:  # seldom: a capital letter gives the first label other tokens than it has in the schema
            query = finish(query, bank[language], rng)
        requests.append(Request(query, {key: picked}, "answerable", language))
    return schema, requests


# ------------------------------------------------------------------------------------------------- groups of one schema

Glossary = dict[str, str]  # what a request may call a thing -> the name that the answer needs


def read_glossary(schema: dict[str, Any], language: str) -> Glossary:
    """Read the labels of one language -> names, of a query-DSL schema or named choices; empty for other schemas.

    A label that two names share is left out.
    """
    if is_query_dsl(schema):
        named = [pair for field in read_dsl(schema).fields for pair in ((field.const, field.labels), *field.choices)]
    else:
        options = [
            option for part in schema["properties"].values() for option in part.get("items", {}).get("oneOf", ())
        ]
        named = [(option["const"], labels_of(option["const"], option["description"])) for option in options]
    names: dict[str, set[str]] = {}
    for name, labels in named:
        for label in labels[language]:
            names.setdefault(label, set()).add(name)
    return {label: found.pop() for label, found in names.items() if len(found) == 1}


def draw_group(words: Words, rng: Rng, pairs: int) -> list[tuple[str, str, Glossary]]:
    """Draw (prompt, completion, glossary) of one schema: 63% query DSL, 15% lists of named choices, 22% objects."""
    hardness = words.hardness
    bank, dates = noisy(load_bank("pretraining"), words, rng), [draw_date(rng).isoformat() for _ in range(2)]
    requests: list[tuple[Request, str]] = []
    kind_of_schema = rng.random()
    if kind_of_schema < 0.15:
        schema, found = draw_lookup(words, bank, rng, pairs)
        requests = [(request, rng.choice(dates)) for request in found]
    elif kind_of_schema < 0.78:
        schema = draw_dsl_schema(words, rng)
        spec = read_dsl(schema)
        while len(requests) < pairs:
            weights = (70, 15 * hardness, 15 * hardness)
            kind = rng.choices(("answerable", "missing_field", "unsupported_operator"), weights)[0]
            language, date = "fr" if rng.random() < 0.58 else "en", rng.choice(dates)
            try:
                requests.append((draw_request(spec, bank, language, kind, date, rng, words.value, EVENLY), date))
            except ValueError:
                continue
    else:
        schema, sample = draw_object_schema(words, rng)
        for _ in range(pairs):
            value, language = sample(rng), "fr" if rng.random() < 0.12 * hardness else "en"
            requests.append(
                (
                    Request(word_object(value, schema, bank, language, rng), value, "answerable", language),
                    rng.choice(dates),
                )
            )
    glossaries = {language: read_glossary(schema, language) for language in ("en", "fr")}
    return [
        (render_prompt(schema, r.query, date), completion_text(r.answer), glossaries[r.language])
        for r, date in requests
    ]
