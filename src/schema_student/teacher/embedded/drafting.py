"""Draft a domain specification of a prompt that lists what its records hold, as in "guitar shop: makers, prices"."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from schema_student.teacher.embedded.concepts import DATE_NAMES, find_number_concept, find_text_concept

LEAST, MOST = 4, 12  # fields that the role asks for
FURTHER = ("name", "date added", "quantity", "notes")  # where a prompt lists fewer
YES_OR_NO = r"^whether\b|^(is|has|with|can)\b|\b(available|included|allowed|paid|open|active|in stock)$"
WHOLE = r"\b(number|count|quantity|age|year|nights|seats|pages|bedrooms|rooms|stars|size|pieces)\b"
EXAMPLES = 10  # of a field


def draft_spec(prompt: str) -> dict[str, Any]:
    """Draft the specification of a prompt, by rule: a field a thing that it lists, its type by its name.

    Labels are the prompt's own words in both languages.

    >>> spec = draft_spec("guitar shop: makers, prices, delivery dates and whether in stock")
    >>> [(field["const"], field["type"]) for field in spec["fields"]]
    [('maker', 'string'), ('price', 'number'), ('delivery_date', 'date'), ('in_stock', 'boolean')]
    """
    domain, _, listed = prompt.partition(":")
    domain = " ".join(domain.split()[:8])
    things = re.split(r",|;| and | or ", listed.lower())
    fields: dict[str, dict[str, Any]] = {}
    for thing in [*things, *FURTHER]:
        words = _singular(thing)
        const = _name(words)
        if const and const not in fields and (len(fields) < LEAST or (thing in things and len(fields) < MOST)):
            fields[const] = {"const": const, "description": words, **_type_of(const, thing.strip())}
    noun = f"records of {domain}"
    return {
        "schema_id": _name(domain) or "domain",
        "domain": domain,
        "noun": {"en": noun, "fr": f"fiches de {domain}"},
        "description": f"Search {noun}.",
        "fields": list(fields.values()),
        "example_queries": [f"Show me the {noun} by {next(iter(fields.values()))['description']}"],
    }


def _type_of(const: str, thing: str) -> dict[str, Any]:
    """The type of a field by its name, and examples where they are known."""
    number, text = find_number_concept(const, ""), find_text_concept(const, "")
    if re.search(YES_OR_NO, thing):
        return {"type": "boolean"}
    if re.search(DATE_NAMES, thing):
        return {"type": "date"}
    if re.search(WHOLE, thing):
        return {"type": "integer"}
    if number is not None and (text is None or text.name in ("name", "kind")):
        return {"type": "number"}
    examples = {"examples": [value[0] for value in text.values[:EXAMPLES]]} if text is not None else {}
    return {"type": "string", **examples}


def _singular(words: str) -> str:
    """Take the words of one thing, singular.

    >>> _singular(" whether available"), _singular("cities"), _singular("glasses")
    ('available', 'city', 'glass')
    """
    words = re.sub(r"^(and|whether|the|their|its)\s+", "", " ".join(words.split()))
    for end, single in (("ies", "y"), ("sses", "ss"), ("ss", "ss"), ("us", "us"), ("s", "")):
        if words.endswith(end) and len(words) > len(end) + 2:
            return words.removesuffix(end) + single
    return words


def _name(words: str) -> str:
    """Write words as the constant of a field.

    >>> _name("Prix d'entrée (2 jours)")
    'prix_d_entree_2_jours'
    """
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    return re.sub(r"^[\W\d_]+|_+$", "", re.sub(r"\W+", "_", plain))
