"""Put a truth into words: draw what a request should mean, then say it with a bank of phrases.

The embedded teacher and the pretraining of the embedded student share this machinery and nothing of what they say:
each has its own bank in data/ (phrases_teacher.json, phrases_pretraining.json), and a test holds that the two have no
template in common, so that SFT on the teacher's data has something to teach.

A request for the query DSL is drawn by `draw_request`, one for any other JSON Schema is worded by `word_object`.
"""

from __future__ import annotations

import calendar
import datetime
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from schema_student.core.resources import DATA_DIR
from schema_student.schema.query_dsl import STAND_INS, DslSpec, Field, operators_for
from schema_student.schema.structure import resolve

KINDS = ("answerable", "missing_field", "unsupported_operator")
MONTHS = {
    "en": "January February March April May June July August September October November December".split(),
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split(),
}
# How often a period is of each kind, in relative weights. The last six count from the current date.
PERIODS = {
    **{"between": 5, "since": 3, "month": 3, "year": 3},
    **{"this_month": 1, "last_month": 1, "this_year": 1.5, "last_year": 1.5, "today": 1, "last_days": 1},
}
# What a refusal says is part of the target format, so it stands here and not in a bank of request phrasings.
REFUSALS = {
    "en": {
        "missing_field": "no field for {what}",
        "unsupported_operator": "no operator for {what}",
        "try": "ask by {a} or {b}",
    },
    "fr": {
        "missing_field": "aucun champ pour {what}",
        "unsupported_operator": "aucun opérateur pour {what}",
        "try": "demandez par {a} ou {b}",
    },
}
OPERATOR_WORDS = {
    "en": {
        "equals": "equality",
        "not_equals": "exclusion",
        "like": "resemblance",
        "in": "choice among several",
        "not_in": "exclusion of several",
        "contains": "containment",
        "starts_with": "beginning",
        "ends_with": "ending",
        "gt": "greater",
        "lt": "smaller",
    },
    "fr": {
        "equals": "égalité",
        "not_equals": "exclusion",
        "like": "ressemblance",
        "in": "choix parmi plusieurs",
        "not_in": "exclusion de plusieurs",
        "contains": "inclusion",
        "starts_with": "début",
        "ends_with": "fin",
        "gt": "plus grand",
        "lt": "plus petit",
    },
}

Bank = dict[str, Any]
Draw = Callable[[random.Random], str]


@dataclass(frozen=True)
class Request:
    """A request in words and the answer that it was made from: the truth, not a guess."""

    query: str
    answer: Any
    kind: str
    language: str


@cache
def load_bank(name: str) -> Bank:
    """data/phrases_<name>.json: {language: {idea: [template, ...]}}."""
    bank: Bank = json.loads((DATA_DIR / f"phrases_{name}.json").read_text(encoding="utf-8"))
    return bank


def draw_request(
    spec: DslSpec,
    bank: Bank,
    language: str,
    kind: str,
    current_date: str,
    rng: random.Random,
    word: Draw | None = None,
    periods: dict[str, float] = PERIODS,
) -> Request:
    """One request of a kind (see KINDS) with the AST that answers it.

    `word` draws a free string value; without it the bank's own values are used. `periods` are the relative weights of
    the kinds of time frames. Raises ValueError where a schema cannot be asked that kind (no operator is unsupported).
    """
    phrases = bank[language]
    word = word or (lambda r: str(r.choice(phrases["values"])))
    drawn = _draw_conditions(spec, phrases, language, rng, word)
    refusal = None
    if kind == "missing_field":
        refusal = _spoil_field(spec, drawn, phrases, language, rng, word)
    elif kind == "unsupported_operator":
        refusal = _spoil_operator(spec, drawn, phrases, language, rng, word)
    timeframe, period = (
        (None, "") if rng.random() < 0.65 else draw_timeframe(phrases, language, current_date, rng, periods)
    )
    query = _sentence(spec, drawn, period, phrases, language, rng)
    if refusal:
        a, b = (spec.fields[i].const for i in (0, 1))
        return Request(
            query,
            {"prompt": query, "refusal": {"reason": refusal, "suggestion": REFUSALS[language]["try"].format(a=a, b=b)}},
            kind,
            language,
        )
    steps = [
        {
            "name": f"step_{i + 1}",
            "conditions": [condition for condition, _ in step],
            "description": ", ".join(condition["field"] for condition, _ in step),
        }
        for i, step in enumerate(drawn)
    ]
    answer = {"prompt": query, "steps": steps} | ({"timeframe": timeframe} if timeframe else {})
    return Request(query, answer, kind, language)


Conditions = list[tuple[dict[str, Any], str]]


def _draw_conditions(spec: DslSpec, phrases: Bank, language: str, rng: random.Random, word: Draw) -> list[Conditions]:
    """One or two steps, three conditions at most, no field twice; each condition beside its words."""
    sizes = rng.choices([[1], [2], [3], [1, 1], [2, 1], [1, 2]], [36, 30, 9, 12, 7, 6])[0]
    usable = [field for field in spec.fields if operators_for(field, spec.operators)]
    if not usable:
        raise ValueError("no operator of this schema suits any of its fields")
    fields = rng.sample(usable, min(sum(sizes), len(usable)))
    steps = []
    for size in sizes:
        taken, fields = fields[:size], fields[size:]
        if taken:
            steps.append([_draw_condition(field, spec.operators, phrases, language, rng, word) for field in taken])
    return steps


def _draw_condition(
    field: Field, operators: dict[str, str], phrases: Bank, language: str, rng: random.Random, word: Draw
) -> tuple[dict[str, Any], str]:
    canonical = rng.choice(operators_for(field, operators))
    value, text = draw_value(field, canonical, phrases, language, rng, word)
    phrase = rng.choice(_templates(phrases["operators"][canonical], field.type, value))
    words = phrase.format(f=rng.choice(field.labels[language]), v=text)
    return {"field": field.const, "operator": operators[canonical], "value": value}, words


def _templates(templates: dict[str, list[str]], kind: str, value: Any) -> list[str]:
    """Phrases that suit a value's type: its own first, else those for any."""
    if value is True or value is False:
        return templates["true" if value else "false"]
    group = {"integer": "number", "string": "text", "enum": "text"}.get(kind, kind)
    return templates.get(group) or templates["any"]


def draw_value(
    field: Field, canonical: str, phrases: Bank, language: str, rng: random.Random, word: Draw
) -> tuple[Any, str]:
    """A value of the field's type and its words; a list of two or three for a list operator."""
    if canonical in ("in", "not_in"):
        size = rng.choice((2, 2, 3))
        drawn = (_draw_scalar(field, phrases, language, rng, word) for _ in range(4 * size))
        unique = list({json.dumps(value): (value, text) for value, text in drawn}.values())[:size]
        return [value for value, _ in unique], join([text for _, text in unique], rng.choice(phrases["or"]))
    value, text = _draw_scalar(field, phrases, language, rng, word)
    if (
        canonical in ("contains", "starts_with", "ends_with", "like")
        and isinstance(value, str)
        and " " in value
        and rng.random() < 0.7
    ):
        value = text = value.split()[-1 if canonical == "ends_with" else 0]
    return value, text


def _draw_scalar(field: Field, phrases: Bank, language: str, rng: random.Random, word: Draw) -> tuple[Any, str]:
    if field.type == "enum":
        const, labels = rng.choice(field.choices)
        return const, rng.choice(labels[language])
    if field.type == "boolean":
        value = rng.random() < 0.5
        return value, ""
    if field.type == "date":
        day = draw_date(rng)
        return day.isoformat(), say_date(day, language, rng)
    if field.type in ("integer", "number"):
        number = draw_number(field.type, rng, field.examples)
        return number, say_number(number, phrases, rng)
    text = str(rng.choice(field.examples)) if field.examples else word(rng)
    return text, rng.choice(phrases["quotes"]).format(text)


def draw_number(kind: str, rng: random.Random, bounds: tuple[Any, ...] = ()) -> int | float:
    """A number as people ask for it: between the two bounds where they are known, round more often than not."""
    if len(bounds) == 2:
        number = rng.uniform(*bounds)
        return round(number, rng.choice((0, 1, 1, 2))) if kind == "number" and rng.random() < 0.5 else round(number)
    magnitude = rng.choice((9, 20, 99, 99, 500, 999, 9999))
    if kind == "number" and rng.random() < 0.4:
        return round(rng.uniform(0.1, min(magnitude, 999)), rng.choice((1, 1, 2)))
    return rng.randint(1, magnitude) if rng.random() < 0.7 else max(1, round(rng.randint(1, magnitude), -1))


def say_number(number: int | float, phrases: Bank, rng: random.Random) -> str:
    """Digits, or for small numbers now and then the word: bank["numbers"][n]."""
    if isinstance(number, int) and 0 <= number < len(phrases["numbers"]) and rng.random() < 0.25:
        return str(phrases["numbers"][number])
    return str(number)


def draw_date(rng: random.Random) -> datetime.date:
    """A day of the nine years from 2019."""
    return datetime.date(2019, 1, 1) + datetime.timedelta(days=rng.randrange(365 * 9))


def say_date(day: datetime.date, language: str, rng: random.Random) -> str:
    """ISO form, or the way people write a date."""
    month = MONTHS[language][day.month - 1]
    forms = [day.isoformat()] * 3 + [f"{day.day} {month} {day.year}"]
    return rng.choice([*forms, f"{month} {day.day}, {day.year}"] if language == "en" else forms)


def draw_timeframe(
    phrases: Bank, language: str, current_date: str, rng: random.Random, periods: dict[str, float]
) -> tuple[dict[str, str], str]:
    """A period {start, end} (both inclusive, ISO dates) and its words; the relative ones count from current_date."""
    today = datetime.date.fromisoformat(current_date)
    idea = rng.choices(list(periods), list(periods.values()))[0]
    first, last = sorted((draw_date(rng), draw_date(rng)))
    if idea == "since":
        first = today - datetime.timedelta(days=rng.randrange(10, 900))
    days = rng.choice((2, 3, 5, 7, 10, 14, 30))
    start, end = _period(idea, first, last, today, days)
    text = rng.choice(phrases["timeframes"][idea]).format(
        start=say_date(first, language, rng),
        end=say_date(last, language, rng),
        month=MONTHS[language][first.month - 1],
        year=first.year,
        days=days,
    )
    return {"start": start.isoformat(), "end": end.isoformat()}, text


def _period(
    idea: str, first: datetime.date, last: datetime.date, today: datetime.date, days: int
) -> tuple[datetime.date, datetime.date]:
    if idea == "between":
        return first, last
    if idea == "since":
        return first, today
    if idea == "today":
        return today, today
    if idea == "last_days":
        return today - datetime.timedelta(days=days), today
    if idea in ("year", "this_year", "last_year"):
        year = {"year": first.year, "this_year": today.year, "last_year": today.year - 1}[idea]
        return datetime.date(year, 1, 1), datetime.date(year, 12, 31)
    anchor = {"month": first, "this_month": today, "last_month": today.replace(day=1) - datetime.timedelta(days=1)}[
        idea
    ]
    return anchor.replace(day=1), anchor.replace(day=calendar.monthrange(anchor.year, anchor.month)[1])


def _spoil_field(
    spec: DslSpec, drawn: list[Conditions], phrases: Bank, language: str, rng: random.Random, word: Draw
) -> str:
    """Put a field that the schema does not have in the place of one condition; gives the reason to refuse."""
    known = {label for field in spec.fields for names in field.labels.values() for label in names}
    missing = rng.choice([label for label in phrases["missing_fields"] if label not in known])
    invent = missing == "{word}"
    while invent and (missing in known or not missing.replace(" ", "").isalpha()):
        missing = word(rng).lower()
    stranger = Field(missing, rng.choice(("string", "number")), {language: (missing,)})
    _replace_one(
        drawn,
        _draw_condition(
            stranger,
            spec.operators | ({} if operators_for(stranger, spec.operators) else {"equals": "equals"}),
            phrases,
            language,
            rng,
            word,
        ),
        rng,
    )
    return REFUSALS[language]["missing_field"].format(what=missing)


def _spoil_operator(
    spec: DslSpec, drawn: list[Conditions], phrases: Bank, language: str, rng: random.Random, word: Draw
) -> str:
    """Ask for a comparison that the schema cannot make, of a field that it has; gives the reason to refuse."""
    absent = [
        c
        for c, stand_ins in STAND_INS.items()
        if c not in spec.operators and not any(s in spec.operators for s in stand_ins)
    ]
    options = [
        (field, canonical) for field in spec.fields for canonical in operators_for(field, dict.fromkeys(absent, ""))
    ]
    if not options:
        raise ValueError("this schema supports every operator that could be asked of its fields")
    field, canonical = rng.choice(options)
    _replace_one(drawn, _draw_condition(field, {canonical: canonical}, phrases, language, rng, word), rng)
    return REFUSALS[language]["unsupported_operator"].format(what=OPERATOR_WORDS[language][canonical])


def _replace_one(drawn: list[Conditions], spoiled: tuple[dict[str, Any], str], rng: random.Random) -> None:
    step = rng.choice(drawn)
    step[rng.randrange(len(step))] = spoiled


def _sentence(
    spec: DslSpec, drawn: list[Conditions], period: str, phrases: Bank, language: str, rng: random.Random
) -> str:
    steps = [join([words for _, words in step], rng.choice(phrases["and"])) for step in drawn]
    text = rng.choice(phrases["requests"]).format(noun=spec.noun[language], conditions=steps[0])
    for step in steps[1:]:
        text = rng.choice(phrases["then"]).format(first=text, second=step)
    if period:
        text = rng.choice(phrases["with_timeframe"]).format(request=text, timeframe=period)
    return finish(text, phrases, rng)


def finish(text: str, phrases: Bank, rng: random.Random) -> str:
    """Capital letter or not, and one of the bank's endings, as people type."""
    text = re.sub(r"\s+", " ", text).strip()
    return (text[0].upper() + text[1:] if rng.random() < 0.5 else text) + rng.choice(phrases["endings"])


def join(parts: list[str], last: str) -> str:
    """a, b<last>c"""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + last + parts[-1]


def words_of(name: str) -> str:
    """`unitPrice`, `unit_price` and `shop.unit-price` as people say them: `unit price`, `shop unit price`."""
    return re.sub(r"[\s_.\-/]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).strip().lower()


def word_object(value: Any, schema: dict[str, Any], bank: Bank, language: str, rng: random.Random) -> str:
    """A request that an instance of an arbitrary JSON Schema answers: every value that it holds, put into words."""
    phrases = bank[language]["object"]
    resolved = _resolved(schema, schema)
    heading = str(schema.get("description") or "").split(". ")[0].strip().rstrip(".")
    task = words_of(str(schema.get("title", "") or "request"))
    if heading and len(heading) < 90 and rng.random() < 0.6:
        task = heading[0].lower() + heading[1:]
    body = (
        _word_properties(value, resolved, schema, bank[language], rng)
        if isinstance(value, dict)
        else _say_value(value, bank[language], rng)
    )
    template = rng.choice(phrases["requests"] if body else phrases["bare_requests"])
    return finish(template.format(task=task, properties=body), bank[language], rng)


def _resolved(schema: Any, root: dict[str, Any]) -> dict[str, Any]:
    found = resolve(schema, root)
    return found if isinstance(found, dict) else {}


def _word_properties(
    value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], bank: Bank, rng: random.Random
) -> str:
    phrases = bank["object"]
    names = list(value)
    if rng.random() < 0.4:
        rng.shuffle(names)
    children = {name: _resolved(schema.get("properties", {}).get(name, {}), root) for name in names}
    alone = schema is root and len(names) == 1
    parts = [_word_property(name, value[name], children[name], root, bank, rng, alone) for name in names]
    separator = rng.choice(phrases["separators"])
    return (
        separator.join(parts[:-1]) + (rng.choice(phrases["last_separators"]) if len(parts) > 1 else "") + parts[-1]
        if parts
        else ""
    )


def _word_property(
    name: str,
    value: Any,
    schema: dict[str, Any],
    root: dict[str, Any],
    bank: Bank,
    rng: random.Random,
    alone: bool = False,
) -> str:
    templates = bank["object"]["property"]
    label = words_of(name)
    described = str(schema.get("description") or "").split(".")[0].strip().lower()
    described = described.removeprefix("the ").removeprefix("a ")
    if described and len(described.split()) <= 4 and rng.random() < 0.3:
        label = described
    if isinstance(value, bool):
        return str(rng.choice(templates["true" if value else "false"])).format(name=label)
    if isinstance(value, dict):
        inner = _word_properties(value, schema, root, bank, rng)
        return str(rng.choice(templates["object" if inner else "empty"])).format(name=label, value=inner)
    if value is None or value == []:
        return str(rng.choice(templates["empty"])).format(name=label)
    if isinstance(value, list):
        items = _resolved(schema.get("items", {}), root)
        said = [
            _word_properties(v, items, root, bank, rng) if isinstance(v, dict) else _say_value(v, bank, rng)
            for v in value
        ]
        return str(rng.choice(templates["list"])).format(
            name=label, value=join(said, rng.choice(bank["object"]["list_and"]))
        )
    key = "number" if isinstance(value, (int, float)) else "any"
    if alone and rng.random() < 0.5:
        key = "single"
    return str(rng.choice(templates[key])).format(name=label, value=_say_value(value, bank, rng))


def _say_value(value: Any, bank: Bank, rng: random.Random) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (int, float)):
        return say_number(value, bank, rng)
    if isinstance(value, str):
        if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            return value
        return str(rng.choice(bank["quotes"])).format(value)
    return json.dumps(value, ensure_ascii=False)
