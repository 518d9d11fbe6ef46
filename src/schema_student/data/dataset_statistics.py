"""Describe the rows of a dataset: how varied they are, and how balanced, in training and in the tests.

Stands between the dataset and its card and the report's figure of it, which show what is counted here.

    facts = compute_statistics(read_rows(paths(settings).dataset, DatasetRow))
    print(facts["balance"]["operators"]["equals"])   # {"training": 812, "tests": 140}
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.records import DatasetRow
from schema_student.core.splits import TESTS
from schema_student.data.dedup import WORD
from schema_student.data.likeness import compare_with_own
from schema_student.schema.query_dsl import DslSpec, is_query_dsl, read_dsl
from schema_student.schema.structure import resolve

SIDES = ("training", "tests")
LENGTHS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, None))  # words of a request
JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
MANY = 6  # conditions, steps, properties and levels are counted up to so many, "6+"

Counts = dict[str, Counter[str]]  # side -> what -> how many


def compute_statistics(rows: Sequence[DatasetRow]) -> Row:
    """Compute size, diversity and balance of rows; keys are in reading order.

    `balance`: {what: {case: {"training": n, "tests": n}}}; what does not occur in these rows is left out. `diversity`:
    for each side requests, words, the median length, and distinct-1, -2 and -3 (distinct n-grams over all, Li et al.
    2016, arXiv 1510.03055); `fields`: how many of those that its schemas have were asked for. `likeness`: that of
    `compare_with_own`.
    """
    sides = {side: [row for row in rows if _side(row) == side] for side in SIDES}
    counts: dict[str, Counts] = defaultdict(lambda: {side: Counter() for side in SIDES})
    for side, mine in sides.items():
        for row in mine:
            for what, case in _facts(row):
                counts[what][side][case] += 1
    balance = {what: _table(found) for what, found in counts.items()}
    return {
        "rows": len(rows),
        "schemas": len({row.schema_id for row in rows}),
        "diversity": {side: _diversity(mine) for side, mine in sides.items()},
        "balance": {what: balance[what] for what in ORDER if what in balance},
        "likeness": compare_with_own(rows),
    }


def _side(row: DatasetRow) -> str:
    return SIDES[row.split in TESTS]


def _table(found: Counts) -> dict[str, dict[str, int]]:
    """Cases by their order where they have one (numbers), else the most frequent first."""
    total = found[SIDES[0]] + found[SIDES[1]]
    numbered = all(case[0].isdigit() for case in total)
    order = sorted(total, key=lambda case: (int(case.split("-")[0].rstrip("+")) if numbered else -total[case], case))
    return {case: {side: found[side][case] for side in SIDES} for case in order}


# ---------------------------------------------------------------------------------------------------------------------
# Diversity


def _diversity(rows: Sequence[DatasetRow]) -> Row:
    texts = [WORD.findall(row.query.casefold()) for row in rows]
    asked, there = _fields(rows)
    return {
        "requests": len(rows),
        "median_words": statistics.median(map(len, texts)) if texts else 0,
        "vocabulary": len({word for words in texts for word in words}),
        **{f"distinct_{n}": compute_distinct(texts, n) for n in (1, 2, 3)},
        "fields": {"asked": len(asked & there), "there": len(there)},
    }


def compute_distinct(texts: Iterable[list[str]], n: int) -> float:
    """Compute the share of n-grams of all texts that are distinct (Li et al. 2016, arXiv 1510.03055); 0 for none."""
    grams = [tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)]
    return round(len(set(grams)) / len(grams), 4) if grams else 0.0


def _fields(rows: Iterable[DatasetRow]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(schema, field or property) that are asked for, and that there are."""
    asked: set[tuple[str, str]] = set()
    there: set[tuple[str, str]] = set()
    for row in rows:
        name, schema, answer = row.schema_id, _schema(row.schema_json), row.target
        there |= {(name, field) for field in _field_types(row.schema_json)}
        if is_query_dsl(schema):
            asked |= {(name, condition["field"]) for condition in _conditions(answer)}
        elif isinstance(answer, dict):
            asked |= {(name, key) for key in answer}
    return asked, there


# ---------------------------------------------------------------------------------------------------------------------
# Balance


def _facts(row: DatasetRow) -> Iterator[tuple[str, str]]:
    """(what, case) of one row."""
    schema, answer = _schema(row.schema_json), row.target
    yield "languages", row.language or "en"
    yield "words", _band(len(WORD.findall(row.query.casefold())))
    if is_query_dsl(schema):
        yield "kinds", (row.kind or "answerable").replace("_", " ")
        yield from _query_facts(row, answer)
    else:
        yield from _object_facts(schema, answer)


def _query_facts(row: DatasetRow, answer: Any) -> Iterator[tuple[str, str]]:
    if "steps" not in answer:
        return
    conditions, types = _conditions(answer), _field_types(row.schema_json)
    canonical = {own: meaning for meaning, own in _dsl(row.schema_json).operators.items()}
    yield "conditions", _number(len(conditions))
    yield "steps", _number(len(answer["steps"]))
    yield "timeframe", "with" if "timeframe" in answer else "without"
    for condition in conditions:
        yield "operators", str(canonical.get(condition["operator"], condition["operator"]))
        yield "field types", types.get(condition["field"], "unknown")


def _object_facts(schema: Row, answer: Any) -> Iterator[tuple[str, str]]:
    yield "schema depth", _number(_depth(schema, schema))
    yield "properties of the schema", _number(len(_properties(schema, schema)))
    if isinstance(answer, dict):
        yield "properties given", _number(len(answer))
    for value in _leaves(answer):
        yield "value types", JSON_TYPES[type(value)]


ORDER = (
    *("languages", "kinds", "words", "operators", "field types", "conditions", "steps", "timeframe"),
    *("value types", "properties of the schema", "properties given", "schema depth"),
)


def _conditions(answer: Any) -> list[Row]:
    return [condition for step in answer.get("steps", ()) for condition in step["conditions"]]


def _band(words: int) -> str:
    low, high = next(band for band in LENGTHS if band[1] is None or words <= band[1])
    return f"{low}-{high}" if high else f"{low}+"


def _number(n: int) -> str:
    return str(n) if n < MANY else f"{MANY}+"


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _leaves(child)
    else:
        yield value


def _depth(schema: Any, root: Row, above: frozenset[str] = frozenset()) -> int:
    """Levels of objects and arrays of a schema; where it refers to itself it goes round once."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    node = resolve(schema, root)
    if not isinstance(node, dict) or reference in above:
        return 0
    above |= {reference} if reference else set()
    children = [*node.get("properties", {}).values(), *(node[key] for key in ("items",) if key in node)]
    return max((_depth(child, root, above) for child in children), default=0) + bool(children)


def _properties(schema: Any, root: Row) -> Row:
    node = resolve(schema, root)
    return node.get("properties", {}) if isinstance(node, dict) else {}


@cache
def _schema(text: str) -> Any:
    return json.loads(text)


@cache
def _dsl(text: str) -> DslSpec:
    return read_dsl(_schema(text))


@cache
def _field_types(text: str) -> dict[str, str]:
    """Type of each field of a query schema, of each property of another."""
    schema = _schema(text)
    if is_query_dsl(schema):
        return {field.const: field.type for field in _dsl(text).fields}
    return dict.fromkeys(_properties(schema, schema), "")
