"""Tell what a property holds from its name and description, and draw values that people would say.

The concepts (a city, a price, a year, ...) stand in data/values.json in the order in which they are tried.
"""

from __future__ import annotations

import datetime
import json
import random
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from schema_student.core.resources import DATA_DIR
from schema_student.teacher.embedded.bank import words_of

VALUES = DATA_DIR / "values.json"
DATE_FORMATS = {
    **{"YYYY-MM-DD": "%Y-%m-%d", "MM/DD/YYYY": "%m/%d/%Y", "DD/MM/YYYY": "%d/%m/%Y", "YYYY/MM/DD": "%Y/%m/%d"},
    **{"MM-DD-YYYY": "%m-%d-%Y", "DD-MM-YYYY": "%d-%m-%Y", "DD.MM.YYYY": "%d.%m.%Y", "YYYYMMDD": "%Y%m%d"},
}
DATE_NAMES = r"\bdates?\b|deadline|birthday|\bday$|check (in|out)$"
STARTS = r"start|from|begin|check ?in|departure"
ENDS = r"\bend|\bto\b|until|check ?out|return|due|deadline"
TIME_NAMES = r"\btime$|\bstart$|\bend$"
TIME_FORMAT = r"HH:MM|24[- ]hour|hh:mm"
QUOTED = r"""(?<![\w'"`])['"`]([\w$#][\w ,.+#/$%-]{0,40})['"`](?![\w'"`])"""
LISTED = r"(?:e\.g\.,?|such as|for example,?|\bex:)\s+([A-Z][\w .-]{1,30}(?:, [A-Z][\w .-]{1,30})*)"


@dataclass(frozen=True)
class TextConcept:
    """What a text means: its values, each with the ways to say it, and the prepositions that lead it in."""

    name: str
    match: str
    values: tuple[tuple[str, ...], ...]  # (value, said, said, ...)
    lead: tuple[str, ...]
    described: str


@dataclass(frozen=True)
class NumberConcept:
    """What a number means: ranges that it is drawn from, and the ways to say it."""

    name: str
    match: str
    ranges: tuple[tuple[float, float], ...]
    say: tuple[str, ...]  # {v} digits, {w} perhaps a word, {p} a percentage
    described: str
    digits: int  # decimals of a number that is no integer
    round: bool  # whether people round it
    thousands: bool  # whether it may be written with commas


@cache
def _read_values() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(VALUES.read_text(encoding="utf-8"))
    return values


@cache
def text_concepts() -> tuple[TextConcept, ...]:
    """Read the concepts of texts, in the order in which they are tried."""
    entries = _read_values()["text"]
    return tuple(
        TextConcept(
            entry["concept"],
            entry["match"],
            tuple((value, value) if isinstance(value, str) else tuple(value) for value in entry["values"]),
            tuple(entry.get("lead", ())),
            entry.get("described", ""),
        )
        for entry in entries
    )


@cache
def number_concepts() -> tuple[NumberConcept, ...]:
    """Read the concepts of numbers, in the order in which they are tried."""
    return tuple(
        NumberConcept(
            entry["concept"],
            entry["match"],
            tuple((low, high) for low, high in entry["ranges"]),
            tuple(entry.get("say", ("{v}", "{v}", "{w}"))),
            entry.get("described", ""),
            entry.get("digits", 1),
            entry.get("round", False),
            entry.get("thousands", False),
        )
        for entry in _read_values()["number"]
    )


def find_text_concept(name: str, description: str) -> TextConcept | None:
    """Find what a property of texts holds: by its description's marks, then by its name, then by what is described.

    >>> find_text_concept("departure_city", "").name, find_text_concept("to", "The email address to send to.").name
    ('starting place', 'email')
    """
    return _find(text_concepts(), name, description)


def find_number_concept(name: str, description: str) -> NumberConcept | None:
    """Find what a property of numbers holds.

    >>> find_number_concept("interestRate", "").name, find_number_concept("x", "The year of birth").name
    ('rate', 'year')
    """
    return _find(number_concepts(), name, description)


@lru_cache(maxsize=8192)
def _find(concepts: Any, name: str, description: str) -> Any:
    words = words_of(name)
    start = " ".join(words_of(description).split()[:6])
    marked = [c for c in concepts if c.described and re.search(c.described, description)]
    for concept in marked:
        if concept.match == "^$" or re.search(concept.match, words):
            return concept
    named = next((c for c in concepts if c.match != "^$" and re.search(c.match, words)), None)
    is_plain = named is not None and named.name not in ("name", "kind", "identifier", "title")
    if is_plain or (named is not None and not start):
        return named
    found = ((re.search(c.match, start), c) for c in concepts if c.match != "^$")
    placed = [(match.start(), concept) for match, concept in found if match]  # "the colour of the bird" is a colour
    described = [concept for _, concept in sorted(placed, key=lambda pair: pair[0])]
    return next(iter([*marked, *described]), named)


def date_format(name: str, description: str) -> str | None:
    """Find the strftime format of a text that is a date, None where it is none."""
    for written, found in DATE_FORMATS.items():
        if written in description.upper():
            return found
    return "%Y-%m-%d" if re.search(DATE_NAMES, words_of(name)) else None


def order_dates(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Exchange a first and a last day of an object that stand in the wrong order.

    >>> described = {"description": "YYYY-MM-DD"}
    >>> schema = {"properties": {"start": described, "end": described}}
    >>> order_dates({"start": "2024-05-08", "end": "2024-05-03"}, schema)
    {'start': '2024-05-03', 'end': '2024-05-08'}
    """
    days: dict[str, tuple[str, datetime.date]] = {}
    for name, text in value.items():
        part = schema.get("properties", {}).get(name, {})
        form = date_format(name, str(part.get("description") or "")) if isinstance(part, dict) else None
        end = "start" if re.search(STARTS, words_of(name)) else "end" if re.search(ENDS, words_of(name)) else ""
        if form and end and isinstance(text, str) and "enum" not in part and (day := read_date(text, form)):
            days[end] = name, day
    if len(days) == 2 and days["start"][1] > days["end"][1]:
        first, last = days["start"][0], days["end"][0]
        return {**value, first: value[last], last: value[first]}
    return value


def read_date(text: str, form: str) -> datetime.date | None:
    """Read a date of a strftime format; None where it is none."""
    try:
        return datetime.datetime.strptime(text, form).date()
    except ValueError:
        return None


def is_time(name: str, description: str) -> bool:
    """Return whether a text is a time of the day."""
    return re.search(TIME_FORMAT, description) is not None and re.search(TIME_NAMES, words_of(name)) is not None


def draw_text(name: str, schema: dict[str, Any], others: list[str], rng: random.Random) -> str:
    """Draw a free text: an example that the schema gives, else a value of its concept, else one of `others`."""
    description = str(schema.get("description") or "")
    form = date_format(name, description)
    if form:
        day = datetime.date(2015, 1, 1) + datetime.timedelta(days=rng.randrange(365 * 11))
        return day.strftime(form)
    if is_time(name, description):
        return f"{rng.randrange(24):02}:{rng.choice((0, 0, 15, 30, 45)):02}"
    examples = examples_of(schema)
    if examples and rng.random() < 0.6:
        return rng.choice(examples)
    concept = find_text_concept(name, description)
    if concept is not None and concept.name == "identifier":
        return rng.choice(("{a}{n}", "{n}", "{a}-{n}")).format(
            a="".join(rng.choice("ABCDEGHKLMPRSTX") for _ in range(rng.choice((1, 2, 3)))), n=rng.randint(100, 99999)
        )
    return rng.choice(concept.values)[0] if concept is not None else rng.choice(others)


def examples_of(schema: dict[str, Any]) -> list[str]:
    """List the values that a property of texts gives as examples: in `examples`, in quotes, or after "e.g.".

    >>> examples_of({"description": "Status, could be 'open' or 'closed'."})
    ['open', 'closed']
    >>> examples_of({"description": "The game's name, e.g. Halo, Tetris"})
    ['Halo', 'Tetris']
    """
    description = str(schema.get("description") or "")
    given = [example for example in schema.get("examples", ()) if isinstance(example, str)]
    quoted = [text for text in re.findall(QUOTED, description) if not re.search("YYYY|HH|MM", text)]
    listed = [text.strip(" .") for group in re.findall(LISTED, description) for text in group.split(", ")]
    is_place = re.search(r"city and state|City, State", description) is not None
    return given or quoted or ([] if is_place or date_format("", description) else listed)


def draw_number_like(name: str, schema: dict[str, Any], kind: str, rng: random.Random) -> int | float | None:
    """Draw a number of its concept, round as people say it; None where the property tells nothing."""
    concept = find_number_concept(name, str(schema.get("description") or ""))
    if concept is None:
        return None
    low, high = rng.choice(concept.ranges)
    if kind == "integer" or (high > 1 and not concept.digits > 2 and rng.random() < 0.6):
        if high <= 1:
            low, high = low * 100, high * 100
        number = rng.randint(round(low), round(high))
        return _round(number, rng) if concept.round else number
    return round(rng.uniform(low, high), concept.digits)


def _round(number: int, rng: random.Random) -> int:
    """Round to one or two digits, as people do with money.

    >>> _round(48723, random.Random(0)) in (40000, 48000, 48723)
    True
    """
    size = 10 ** max(0, len(str(number)) - rng.choice((1, 2, 2)))
    return max(size, number // size * size) if rng.random() < 0.85 else number


FREE_CONCEPTS = ("formula", "message", "title", "kind", "level", "unit", "unit of temperature", "identifier", "name")


def draw_like(name: str, schema: dict[str, Any], old: Any, rng: random.Random) -> Any:
    """Draw a value that may stand where another one of the same property stood; None where none is known to be like it.

    Numbers keep their size and decimals, dates their format, texts their concept.
    """
    description = str(schema.get("description") or "")
    if isinstance(old, str):
        form = date_format(name, description)
        if form:
            return draw_text(name, schema, [], rng) if read_date(old, form) else None
        concept = find_text_concept(name, description)
        return None if concept is None or concept.name in FREE_CONCEPTS else rng.choice(concept.values)[0]
    return _draw_number_of_size(old, rng)


def _draw_number_of_size(old: int | float, rng: random.Random) -> int | float:
    """Draw another number of about the size of one, a year for a year.

    >>> 1950 <= _draw_number_of_size(2003, random.Random(0)) <= 2025
    True
    """
    scale = rng.choice((0.3, 0.5, 0.8, 1.2, 1.5, 2, 3, 7))
    if isinstance(old, float) and not old.is_integer():
        return round(old * scale, len(str(old).partition(".")[2]))
    number = rng.randint(1950, 2025) if 1900 <= old <= 2100 else rng.randint(1, 12) if 0 <= old < 10 else old * scale
    return type(old)(round(number) or 1)


@cache
def _unit_patterns() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    units = _read_values()["units"].items()
    return tuple(
        (re.compile(rf"(?:\bin|\(|\bof|\bunit:?) (?:\w+ )?(?:{match})(?![\w/])", re.IGNORECASE), tuple(said))
        for match, said in units
    )


@lru_cache(maxsize=8192)
def units_of(description: str) -> tuple[str, ...]:
    """List the ways to say the unit that a description names, () where it names none.

    >>> units_of("The mass of the object in kilograms.")
    ('kg', 'kilograms')
    """
    return next((said for pattern, said in _unit_patterns() if pattern.search(description)), ())
