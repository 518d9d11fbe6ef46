"""Play the writing roles of the embedded teacher: domain specifications, requests, and the answers to those.

It keeps no state: a request is a function of the question, so that the truth of one is found by writing it again.
"""

from __future__ import annotations

import json
import random
from functools import lru_cache
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.stamps import digest
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.query_dsl import is_query_dsl, read_dsl_text
from schema_student.teacher.embedded.bank import KINDS, Bank, Request, load_bank
from schema_student.teacher.embedded.concepts import draw_number_like, draw_text, order_dates
from schema_student.teacher.embedded.drafting import draft_spec
from schema_student.teacher.embedded.identity import LEXICON
from schema_student.teacher.embedded.objects import word_object
from schema_student.teacher.embedded.plain import choose_alternative, word_plainly
from schema_student.teacher.embedded.requests import draw_request

DRAWS_IN_VAIN = 4  # after which a schema is held for one of which no instance is found: each takes its time
DRAWS_SEARCHED = 24  # draws of one batch that the answer role looks through
BATCHES_SEARCHED = 6  # other batches that it looks through when its own does not have the request
PLAIN_SHARE = 0.85  # of the requests of other schemas: those worded as people do; the others name every property
SENTENCE = "I am the embedded rule-based teacher, not a language model: I only know requests that I wrote myself."


class Unknown(Exception):
    """A question that the embedded teacher cannot answer; its text is what it says instead."""


def write_domain_spec(payload: dict[str, Any]) -> dict[str, Any]:
    """Write the domain of the lexicon that payload["seed_prompt"] begins with, else one of what the prompt lists.

    Without a prompt it is the domain of the lexicon at payload["index"].
    """
    entries = _lexicon()
    if prompt := payload.get("seed_prompt"):
        domain = str(prompt).partition(":")[0].strip().casefold()
        return next((entry for entry in entries if entry["domain"].casefold() == domain), None) or draft_spec(prompt)
    index = int(payload.get("index", 0))
    if not 0 <= index < len(entries):
        raise Unknown(f"My lexicon has {len(entries)} domains; there is none at index {index}.")
    return entries[index]


@lru_cache(maxsize=1)
def _lexicon() -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(LEXICON.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        advice = "restore it with `git checkout data/lexicon.json`"
        raise UserError(f"{LEXICON}: cannot be read ({error}); {advice}") from None
    return entries


def write_queries(payload: dict[str, Any]) -> dict[str, Any]:
    """Write payload["count"] requests: a function of schema, language, current_date, kind and batch alone."""
    asked, count = str(payload.get("kind", "any")), int(payload.get("count", 1))
    key = _batch_key(payload, asked if asked in KINDS else "answerable", int(payload.get("batch", 0)))
    found: dict[str, None] = {}
    for i in range(4 * count):
        request = _draw(*key, i)
        if request is not None:
            found.setdefault(request.query)
        if len(found) == count or (i + 1 == DRAWS_IN_VAIN and not found and not is_query_dsl(payload["schema"])):
            break
    if not found:
        raise Unknown("I cannot ask this kind of request of this schema.")
    return {"queries": list(found)}


def write_answer(payload: dict[str, Any]) -> Any:
    """Find the answer to a request that write_queries wrote, by writing its batch again; else Unknown."""
    wanted = " ".join(str(payload.get("query", "")).split())
    known = int(payload.get("batch", 0))
    for batch in [known, *(b for b in range(BATCHES_SEARCHED) if b != known)]:
        for kind in KINDS if is_query_dsl(payload["schema"]) else KINDS[:1]:
            key = _batch_key(payload, kind, batch)
            for i in range(DRAWS_SEARCHED):
                request = _draw(*key, i)
                if request is not None and " ".join(request.query.split()) == wanted:
                    return request.answer
    raise Unknown(f"I did not write this request, and I cannot read requests of others. {SENTENCE}")


def _batch_key(payload: dict[str, Any], kind: str, batch: int) -> tuple[str, str, str, str, int]:
    schema_text = json.dumps(payload["schema"], ensure_ascii=False, sort_keys=True)
    return schema_text, payload.get("language", "en"), payload.get("current_date", "2026-01-01"), kind, batch


@lru_cache(maxsize=16384)
def _draw(schema_text: str, language: str, current_date: str, kind: str, batch: int, i: int) -> Request | None:
    """Draw request i of a batch, or None where it fails; remembered, because the answer role asks again."""
    schema, bank = _parse(schema_text), load_bank("teacher")
    rng = random.Random(f"{_schema_digest(schema_text)} {language} {current_date} {kind} {batch} {i}")
    try:
        if is_query_dsl(schema):
            return draw_request(read_dsl_text(schema_text), bank, language, kind, current_date, rng)
        value = _draw_value(schema, bank[language]["values"], rng)
        return Request(_word(value, schema, bank, language, rng), value, kind, language)
    except ValueError:  # this kind cannot be asked of this schema, or no instance was found
        return None


def _word(value: Any, schema: dict[str, Any], bank: Bank, language: str, rng: random.Random) -> str:
    if not isinstance(value, dict):
        return word_object(value, schema, bank, language, rng)
    value, schema = choose_alternative(value, schema)
    if "plain" in bank[language] and rng.random() < PLAIN_SHARE:
        return word_plainly(value, schema, bank[language], rng)
    return word_object(value, schema, bank, language, rng)


def _draw_value(schema: dict[str, Any], others: list[str], rng: random.Random) -> Any:
    """Draw an instance whose free texts and numbers are such as people say of its properties."""

    def draw_word(part: dict[str, Any], path: str) -> str:
        return draw_text(_name_at(path), part, others, rng)

    def draw_number(part: dict[str, Any], path: str, kind: str) -> int | float | None:
        return draw_number_like(_name_at(path), part, kind, rng)

    value = example_instance(schema, rng, word=draw_word, number=draw_number)
    return order_dates(value, schema) if isinstance(value, dict) else value


def _name_at(path: str) -> str:
    """The name of the property that a path ends in, past the places in lists.

    >>> _name_at("/order/items/0")
    'items'
    """
    return next((part for part in reversed(path.split("/")) if not part.isdigit()), "")


@lru_cache(maxsize=512)
def _parse(schema_text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(schema_text)
    return parsed


@lru_cache(maxsize=512)
def _schema_digest(schema_text: str) -> str:
    return digest(schema_text.encode())
