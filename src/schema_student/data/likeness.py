"""Tell how far the teacher's requests are from the user's own: what is unlike real ones teaches little about them."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.records import DatasetRow
from schema_student.core.splits import TESTS
from schema_student.data.dedup import WORD
from schema_student.data.grounding import ungrounded_values
from schema_student.schema.query_dsl import is_query_dsl
from schema_student.schema.structure import resolve

LEAST = 20  # requests of each that a comparison needs
SAMPLE = 2000  # words that distinct ones are counted among, so that sizes do not matter
FAR = {"median_words": 1.5, "distinct_words": 1.5}  # ratio of the larger to the smaller one
FAR_SHARES = {"optional_share": 0.25, "values_said": 0.15}  # difference
NAMES = {
    "median_words": "words of a request (median)",
    "distinct_words": f"distinct words among {SAMPLE}",
    "optional_share": "share of optional properties that answers have",
    "values_said": "share of answers whose values all stand in the request",
}


def compare_with_own(rows: Sequence[DatasetRow]) -> Row:
    """Compare the teacher's training requests with the user's own of schemas that are no query DSL.

    Returns {"own": {measure: number}, "teacher": {...}, "far": [measure, ...]}, {} where one of them has too few.
    Tests are left out.
    """
    chosen = [row for row in rows if row.split not in TESTS and not is_query_dsl(row.schema)]
    sides = {
        "own": [row for row in chosen if row.source == "user"],
        "teacher": [row for row in chosen if row.source == "teacher"],
    }
    if min(map(len, sides.values())) < LEAST:
        return {}
    found: dict[str, Row] = {side: _measure(mine) for side, mine in sides.items()}
    own, teacher = found["own"], found["teacher"]
    far = [name for name, most in FAR.items() if max(own[name], teacher[name]) > most * min(own[name], teacher[name])]
    far += [name for name, most in FAR_SHARES.items() if abs(own[name] - teacher[name]) > most]
    return {**found, "far": far}


def say_far(compared: Row) -> list[str]:
    """Write a sentence on each measure in which the teacher's requests are far from the user's own."""
    own, teacher = compared.get("own", {}), compared.get("teacher", {})
    return [
        f"the teacher's requests are unlike your own: {NAMES[name]} {teacher[name]:g}, yours {own[name]:g}"
        for name in compared.get("far", ())
    ]


def _measure(rows: Sequence[DatasetRow]) -> Row:
    words = [WORD.findall(row.query.casefold()) for row in rows]
    given, possible = map(sum, zip(*map(_count_optional, rows), strict=True))
    said = sum(not ungrounded_values(row.query, row.target, row.schema) for row in rows)
    # Of all schemas, as requests of one share their words.
    sample = [word for text in random.Random(0).sample(words, len(words)) for word in text][:SAMPLE]
    return {
        "requests": len(rows),
        "median_words": statistics.median(map(len, words)),
        "distinct_words": round(len(set(sample)) * SAMPLE / max(1, len(sample))),
        "optional_share": round(given / possible, 3) if possible else 0.0,
        "values_said": round(said / len(rows), 3),
    }


def _count_optional(row: DatasetRow) -> tuple[int, int]:
    """(optional properties that the answer has, those that it could have), at all levels."""
    schema = row.schema
    pairs = list(_optional(row.target, schema, schema))
    return sum(given for given, _ in pairs), sum(possible for _, possible in pairs)


def _optional(value: Any, schema: Any, root: dict[str, Any]) -> Iterator[tuple[int, int]]:
    part = resolve(schema, root)
    if not isinstance(value, dict) or not isinstance(part, dict):
        return
    properties = part.get("properties", {})
    optional = properties.keys() - set(part.get("required", ()))
    yield len(optional & value.keys()), len(optional)
    for name in properties.keys() & value.keys():
        yield from _optional(value[name], properties[name], root)
