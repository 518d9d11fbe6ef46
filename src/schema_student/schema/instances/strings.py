"""Draw a text that has a pattern, a format and a length, or what of these a schema asks for."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jsonschema_rs

from schema_student.schema.instances.dead_ends import DeadEnd, check_size
from schema_student.schema.instances.formats import FORMATS, SHORT
from schema_student.schema.instances.patterns import draw_from_pattern, draw_with_lookaheads
from schema_student.schema.instances.words import WORDS
from schema_student.schema.sizes import MAX_CHARACTERS

ASKED = ("pattern", "format", "minLength", "maxLength")
DRAWS = 8  # of each way to draw a text
REACHES = (4, 0, 16, 64)  # how often more than asked a part of a pattern is repeated


def draw_string(flat: dict[str, Any], rng: random.Random, word: Callable[[], str]) -> str:
    """Draw a text by the keywords of a flat schema; where they ask for several things at once, by search.

    The search may fail: the check of the level decides.
    """
    low, high = flat.get("minLength", 0), flat.get("maxLength", math.inf)
    check_size("minLength", low, MAX_CHARACTERS)
    if "pattern" not in flat and flat.get("format") not in FORMATS:
        return _fit(word(), low, high, rng)
    first = draw_from_pattern(flat["pattern"], rng) if "pattern" in flat else FORMATS[flat["format"]](rng)
    test = _validator(json.dumps({key: flat[key] for key in ASKED if key in flat}))
    if test.is_valid(first):
        return first
    return next(filter(test.is_valid, _other_texts(flat, int(low), rng)), first)


def _fit(text: str, low: int, high: float, rng: random.Random) -> str:
    """Lengthen a text by words, or cut it."""
    while len(text) < low:
        text = f"{text} {rng.choice(WORDS)}"[: int(min(high, len(text) + 7))]
    return text if len(text) <= high else text[: int(high)].rstrip().ljust(int(low), "a")


def _other_texts(flat: dict[str, Any], low: int, rng: random.Random) -> Iterator[str]:
    most = min(flat.get("maxLength", MAX_CHARACTERS), MAX_CHARACTERS)
    if flat.get("format") in FORMATS:
        texts = [SHORT.get(flat["format"], ""), *(FORMATS[flat["format"]](rng) for _ in range(DRAWS))]
        yield from texts
        yield from (text + "a" * (low - len(text)) for text in texts)
        yield from ("a" * (low - len(text)) + text for text in texts)
    if "pattern" in flat:
        for reach in (*REACHES, low):
            for draw in (draw_from_pattern, draw_with_lookaheads):
                for _ in range(DRAWS):
                    try:
                        text = draw(flat["pattern"], rng, reach)
                    except DeadEnd:
                        break
                    yield from (
                        text,
                        text[:most].ljust(low, text[-1:] or "a"),
                        text[-most:].rjust(low, text[:1] or "a"),
                    )


@lru_cache(maxsize=4096)
def _validator(text: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(text), validate_formats=True)
