"""Draw values of a field's type, each with the words that a request says it in."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from typing import Any

from schema_student.schema.query_dsl import Field
from schema_student.teacher.embedded.bank import Phrases, join

Draw = Callable[[random.Random], str]

MONTHS = {
    "en": "January February March April May June July August September October November December".split(),
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split(),
}
PART_OPERATORS = ("contains", "starts_with", "ends_with", "like")  # those that people ask with a part of a text


class ValueSampler:
    """Draws values and says them in one language; `word` draws a free string, by default one of the bank's values."""

    def __init__(self, phrases: Phrases, language: str, rng: random.Random, word: Draw | None = None) -> None:
        self.phrases, self.language, self.rng = phrases, language, rng
        self.word = word or (lambda r: str(r.choice(phrases["values"])))

    def draw(self, field: Field, canonical: str, is_list: bool) -> tuple[Any, str]:
        """Draw a value of the field's type and its words; a list of two or three for a list operator."""
        if is_list:
            return self._draw_list(field)
        value, text = self._draw_scalar(field)
        has_parts = canonical in PART_OPERATORS and isinstance(value, str) and " " in value
        if has_parts and self.rng.random() < 0.7:
            value = text = value.split()[-1 if canonical == "ends_with" else 0]
        return value, text

    def _draw_list(self, field: Field) -> tuple[list[Any], str]:
        size = self.rng.choice((2, 2, 3))
        drawn = (self._draw_scalar(field) for _ in range(4 * size))
        unique = list({json.dumps(value): (value, text) for value, text in drawn}.values())[:size]
        return [value for value, _ in unique], join([text for _, text in unique], self.rng.choice(self.phrases["or"]))

    def _draw_scalar(self, field: Field) -> tuple[Any, str]:
        if field.type == "enum":
            const, labels = self.rng.choice(field.choices)
            return const, self.rng.choice(labels[self.language])
        if field.type == "boolean":
            return self.rng.random() < 0.5, ""  # its phrase says it
        if field.type == "date":
            day = draw_date(self.rng)
            return day.isoformat(), say_date(day, self.language, self.rng)
        if field.type in ("integer", "number"):
            number = draw_number(field.type, self.rng, field.examples)
            return number, say_number(number, self.phrases, self.rng)
        text = str(self.rng.choice(field.examples)) if field.examples else self.word(self.rng)
        return text, self.rng.choice(self.phrases["quotes"]).format(text)


def draw_number(kind: str, rng: random.Random, bounds: tuple[Any, ...] = ()) -> int | float:
    """Draw a number as people ask for it: between the two bounds where they are known, round more often than not."""
    if len(bounds) == 2:
        number = rng.uniform(*bounds)
        return round(number, rng.choice((0, 1, 1, 2))) if kind == "number" and rng.random() < 0.5 else round(number)
    magnitude = rng.choice((9, 20, 99, 99, 500, 999, 9999))
    if kind == "number" and rng.random() < 0.4:
        return round(rng.uniform(0.1, min(magnitude, 999)), rng.choice((1, 1, 2)))
    return rng.randint(1, magnitude) if rng.random() < 0.7 else max(1, round(rng.randint(1, magnitude), -1))


def say_number(number: int | float, phrases: Phrases, rng: random.Random) -> str:
    """Write a number in digits, or a small one now and then as the word: phrases["numbers"][n]."""
    if isinstance(number, int) and 0 <= number < len(phrases["numbers"]) and rng.random() < 0.25:
        return str(phrases["numbers"][number])
    return str(number)


def draw_date(rng: random.Random) -> datetime.date:
    """Draw a day of the nine years from 2019."""
    return datetime.date(2019, 1, 1) + datetime.timedelta(days=rng.randrange(365 * 9))


def say_date(day: datetime.date, language: str, rng: random.Random) -> str:
    """Write a date in ISO form, or the way people do."""
    month = MONTHS[language][day.month - 1]
    forms = [day.isoformat()] * 3 + [f"{day.day} {month} {day.year}"]
    return rng.choice([*forms, f"{month} {day.day}, {day.year}"] if language == "en" else forms)
