"""Read banks of phrases: the templates that requests are written with, by language and idea.

The embedded teacher and the pretraining of the embedded student share the machinery of this folder and nothing of what
they say: each has its own bank in data/ (phrases_teacher.json, phrases_pretraining.json), and a test holds that the
two have no template in common, so that SFT on the teacher's data has something to teach.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from schema_student.core.resources import DATA_DIR

KINDS = ("answerable", "missing_field", "unsupported_operator")

Bank = dict[str, Any]  # language -> Phrases
Phrases = dict[str, Any]  # idea -> templates; those of operators, time frames and objects are nested once more


@dataclass(frozen=True)
class Request:
    """A request in words and the answer that it was made from: the truth, not a guess."""

    query: str
    answer: Any
    kind: str
    language: str


@cache
def load_bank(name: str) -> Bank:
    """Read data/phrases_<name>.json: {language: {idea: [template, ...]}}."""
    bank: Bank = json.loads((DATA_DIR / f"phrases_{name}.json").read_text(encoding="utf-8"))
    return bank


def templates_for(templates: dict[str, list[str]], kind: str, value: Any) -> list[str]:
    """List an operator's phrases that suit a value: those of its type where there are any, else those for any type."""
    if value is True or value is False:
        return templates["true" if value else "false"]
    group = {"integer": "number", "string": "text", "enum": "text"}.get(kind, kind)
    return templates.get(group) or templates["any"]


def join(parts: list[str], last: str) -> str:
    """Join the parts as a list in a sentence.

    >>> join(["a", "b", "c"], " and ")
    'a, b and c'
    """
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + last + parts[-1]


def finish(text: str, phrases: Phrases, rng: random.Random) -> str:
    """Finish a sentence as people type: with a capital letter or not, and one of the bank's endings."""
    return capitalize(text, rng) + str(rng.choice(phrases["endings"]))


def capitalize(text: str, rng: random.Random) -> str:
    """Begin a sentence as people type: with a capital letter or not; single blanks only."""
    text = re.sub(r"\s+", " ", text).strip()
    return text[0].upper() + text[1:] if rng.random() < 0.5 else text


def words_of(name: str) -> str:
    """Write a property's name as people say it.

    >>> words_of("unitPrice"), words_of("shop.unit-price")
    ('unit price', 'shop unit price')
    """
    return re.sub(r"[\s_.\-/]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).strip().lower()
