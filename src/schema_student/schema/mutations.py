"""Break a valid value: one text for each kind of fault, for the rejected side of pairs and for tests.

Edits are drawn freely at random places and judged; a kind is given only where the judge finds just that fault.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.instances.formats import FORMATS
from schema_student.schema.instances.words import WORDS
from schema_student.schema.judging import find_violations
from schema_student.schema.ranks import NOT_JSON, VALID, WRONG_PROPERTIES, WRONG_TYPE, WRONG_VALUE

BOUNDS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minItems", "maxItems", "minLength", "maxLength"),
)
# What each kind of mutation is judged as: (rank, keywords one of which each violation has).
MUTATIONS: dict[str, tuple[int, tuple[str, ...]]] = {
    "truncated": (NOT_JSON, ()),
    "wrong_type": (WRONG_TYPE, ("type",)),
    "missing": (WRONG_PROPERTIES, ("required",)),
    "unexpected": (WRONG_PROPERTIES, ("additionalProperties", "unevaluatedProperties")),
    "wrong_enum": (WRONG_VALUE, ("enum", "const", "oneOf", "anyOf")),
    "bad_format": (WRONG_VALUE, ("format", "pattern")),
    "out_of_bounds": (WRONG_VALUE, BOUNDS),
    "date_order": (WRONG_VALUE, ("x-rules/date_order",)),
    "other_value": (VALID, ()),
}
MAX_EDITS = 40  # edits tried a kind


def mutate(value: Any, schema: dict[str, Any] | CompiledSchema, rng: random.Random) -> list[tuple[str, str]]:
    """Break a valid value: (text, kind) for each kind of fault that it can be given, in random order.

    The text is compact JSON, cut short for "truncated". Kinds are those of MUTATIONS, and the text's rank is
    MUTATIONS[kind][0]; "other_value" is valid and means something else.
    """
    compiled = schema if isinstance(schema, CompiledSchema) else compile_schema(schema)
    found = list(_truncated(value, rng))
    places = list(_places(value, ()))
    pool = _constants(compiled.schema)
    for kind, edits in _EDITS.items():
        rng.shuffle(places)
        edited = (edit for place, node in places[:MAX_EDITS] for edit in edits(value, place, node, pool, rng))
        fitting = next((candidate for candidate in edited if _is_of_kind(candidate, value, kind, compiled)), None)
        if fitting is not None:
            found.append((_text(fitting[0]), kind))
    rng.shuffle(found)
    return found


def _truncated(value: Any, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Cut in the second half, as a budget of tokens cuts; a number that is cut may still be a number."""
    text = _text(value)
    if isinstance(value, (dict, list)):
        yield text[: rng.randrange(len(text) // 2, len(text))], "truncated"


Place = tuple[Any, ...]  # keys and indices from the root
Edit = tuple[Any]  # the whole edited value, in a tuple because null is a value too


def _is_of_kind(edit: Edit, original: Any, kind: str, compiled: CompiledSchema) -> bool:
    rank, keywords = MUTATIONS[kind]
    violations = find_violations(edit[0], compiled)
    if rank == VALID:
        return not violations and canonical(edit[0], compiled.schema) != canonical(original, compiled.schema)
    ranks = [violation.rank for violation in violations if violation.keyword in keywords]
    return bool(ranks) and len(ranks) == len(violations) and min(ranks) == rank


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _places(node: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    yield place, node
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _places(child, (*place, key))


def _constants(node: Any) -> list[Any]:
    """Constants anywhere in a schema: what a confused writer might put in the wrong place."""
    if isinstance(node, list):
        return [constant for child in node for constant in _constants(child)]
    if not isinstance(node, dict):
        return []
    own = [node["const"]] if "const" in node else []
    own += node["enum"] if isinstance(node.get("enum"), list) else []
    children = [child for key, child in node.items() if key not in ("const", "enum")]
    return own + [constant for child in children for constant in _constants(child)]


def _replaced(value: Any, place: Place, new: Any) -> Edit:
    if not place:
        return (new,)
    head, rest = place[0], place[1:]
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[head] = _replaced(value[head], rest, new)[0]
    return (copied,)


def _without(value: Any, place: Place) -> Edit:
    head, rest = place[0], place[1:]
    copied = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        copied[head] = _without(value[head], rest)[0]
    else:
        del copied[head]
    return (copied,)


def _edit_type(value: Any, place: Place, node: Any, pool: list[Any], rng: random.Random) -> Iterator[Edit]:
    quoted = node if isinstance(node, str) else _text(node)
    others: list[Any] = [quoted, [node], {"value": node}, None, 1]
    if isinstance(node, list):
        others.insert(0, node[0] if node else "")
    yield from (_replaced(value, place, other) for other in others if type(other) is not type(node))


def _edit_missing(value: Any, place: Place, node: Any, pool: list[Any], rng: random.Random) -> Iterator[Edit]:
    if place and isinstance(place[-1], str):
        yield _without(value, place)


def _edit_unexpected(value: Any, place: Place, node: Any, pool: list[Any], rng: random.Random) -> Iterator[Edit]:
    if isinstance(node, dict):
        for name in ("description", "comment", "name", "type", *(f"{key}s" for key in node)):
            if name not in node:
                yield _replaced(value, place, {**node, name: rng.choice([*WORDS, 1, True])})


def _edit_enum(value: Any, place: Place, node: Any, pool: list[Any], rng: random.Random) -> Iterator[Edit]:
    others = [constant for constant in pool if constant != node]
    rng.shuffle(others)
    yield from (_replaced(value, place, other) for other in others[:8])
    if isinstance(node, str):
        yield from (_replaced(value, place, other) for other in (f"{node}s", node[:-1], rng.choice(WORDS)))


def _edit_format(value: Any, place: Place, node: Any, pool: list[Any], rng: random.Random) -> Iterator[Edit]:
    if isinstance(node, str):
        if re.match(r"\d{4}-\d\d-\d\d", node):
            year, month, day = node[:4], node[5:7], node[8:10]
            bad = [f"{day}/{month}/{year}{node[10:]}", f"{year}-{month}-32{node[10:]}", f"{year}-{month}{node[10:]}"]
            rng.shuffle(bad)
            yield from (_replaced(value, place, other) for other in bad)
        yield from (_replaced(value, place, other) for other in (rng.choice(WORDS), f" {node} ", node[1:], f"{node}!"))


def _edit_bounds(value: Any, place: Place, node: Any, pool: list[Any], rng: random.Random) -> Iterator[Edit]:
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        yield from (_replaced(value, place, node + sign * size) for size in (10, 1000, 10**9) for sign in (1, -1))
    if isinstance(node, list):
        yield _replaced(value, place, [])
        yield _replaced(value, place, node * 20)
    if isinstance(node, str):
        yield _replaced(value, place, node * 100)


def _edit_order(value: Any, place: Place, node: Any, pool: list[Any], rng: random.Random) -> Iterator[Edit]:
    if isinstance(node, dict):
        names = [name for name, child in node.items() if isinstance(child, str) and re.match(r"\d{4}-\d\d-\d\d", child)]
        for a, b in pairwise(names):
            yield _replaced(value, place, {**node, a: node[b], b: node[a]})
            yield _replaced(value, place, {**node, b: f"1999{node[b][4:]}"})


def _edit_other(value: Any, place: Place, node: Any, pool: list[Any], rng: random.Random) -> Iterator[Edit]:
    """Another value that may be valid: another constant, number, date or word, or one thing fewer."""
    if isinstance(node, bool):
        yield _replaced(value, place, not node)
    elif isinstance(node, (int, float)):
        yield from (_replaced(value, place, node + difference) for difference in rng.sample((1, -1, 10, -10), 4))
    elif isinstance(node, str):
        same = [constant for constant in pool if isinstance(constant, str) and constant != node]
        date = [FORMATS["date"](rng)] if re.fullmatch(r"\d{4}-\d\d-\d\d", node) else []
        others = [*rng.sample(same, min(4, len(same))), *date, rng.choice(WORDS)]
        yield from (_replaced(value, place, other) for other in others)
    if place:
        yield _without(value, place)


_EDITS: dict[str, Callable[[Any, Place, Any, list[Any], random.Random], Iterator[Edit]]] = {
    "wrong_type": _edit_type,
    "missing": _edit_missing,
    "unexpected": _edit_unexpected,
    "wrong_enum": _edit_enum,
    "bad_format": _edit_format,
    "out_of_bounds": _edit_bounds,
    "date_order": _edit_order,
    "other_value": _edit_other,
}
