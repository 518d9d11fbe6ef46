"""Compare an answer with its target part by part: conditions of the query DSL, properties of any other object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from schema_student.schema.canonical import canonical_condition, canonical_text, meaning_text, without_defaults
from schema_student.schema.free_text import names_what_is_missing, same_request
from schema_student.schema.query_dsl import is_query_dsl, is_refusal
from schema_student.schema.structure import general_pointer, json_pointer

CONDITION = re.compile(r"/steps/(\d+)/conditions/(\d+)")


@dataclass(frozen=True)
class Part:
    """A condition, a timeframe, a refusal or a property, of the answer (`given`), of its target (`expected`), or both.

    `path` is a JSON Pointer into the answer, into the target where the answer lacks the part. `right` parts are given
    as they were expected; so precision is the share of the given ones that is right, recall that of the expected ones.
    """

    path: str
    right: bool
    given: bool
    expected: bool


def compare_parts(value: Any, target: Any, schema: dict[str, Any]) -> tuple[Part, ...]:
    """Compare the parts of a value and of its target; all are right where a valid value says what the target says.

    >>> [(part.path, part.right) for part in compare_parts({"unit": "km", "n": 2}, {"unit": "km", "n": 3}, {})]
    [('/unit', True), ('/n', False)]
    """
    if is_query_dsl(schema):
        return tuple(_compare_answers(value, target))
    value, target = (without_defaults(side, schema, schema) for side in (value, target))
    return tuple(_compare_properties(value, target, ()))


def name_part(part: Part, value: Any, target: Any) -> str:
    """Name what a part says, wherever it stands: the field of a condition, else its path with * for every index.

    >>> name_part(Part("/unit", True, True, True), {"unit": "km"}, {"unit": "km"})
    '/unit'
    """
    place, condition = value if part.given else target, CONDITION.fullmatch(part.path)
    if condition is None or not isinstance(place.get("steps"), list):
        return general_pointer(part.path)
    said = place["steps"][int(condition[1])]["conditions"][int(condition[2])]
    field = said.get("field") if isinstance(said, dict) else None
    return field if isinstance(field, str) else general_pointer(part.path)


# Any schema


def _compare_properties(value: Any, target: Any, path: tuple[str, ...]) -> Iterator[Part]:
    """Compare properties of objects, also of nested ones; a list is one part."""
    if not (isinstance(value, dict) and isinstance(target, dict) and (value or target)):
        yield Part(json_pointer(path), meaning_text(value) == meaning_text(target), True, True)
        return
    for key in dict.fromkeys((*value, *target)):
        if key in value and key in target:
            yield from _compare_properties(value[key], target[key], (*path, key))
        else:
            yield Part(json_pointer((*path, key)), False, key in value, key in target)


# The query DSL


@dataclass(frozen=True)
class _Piece:
    """What a query says in one place; pieces are compared within the step that they belong to."""

    path: str
    step: str
    field: str
    text: str


def _compare_answers(value: Any, target: Any) -> Iterator[Part]:
    """Compare what the DSL says; the echo of the request is a part where it is garbled."""
    if is_refusal(value) and is_refusal(target):
        yield Part("/refusal", refuses_alike(value, target), True, True)
    else:
        yield from _compare_queries(_list_pieces(value), _list_pieces(target))
    if not echoes_alike(value, target):
        yield Part("/prompt", False, True, True)


def echoes_alike(value: Any, target: Any) -> bool:
    """Return whether two answers echo one request; what has no echo garbles none."""
    known = all(isinstance(side, dict) and "prompt" in side for side in (value, target))
    return not known or same_request(value["prompt"], target["prompt"])


def refuses_alike(value: Any, target: Any) -> bool:
    """Return whether the reason of a refusal names what that of the target says to be missing."""
    reason, expected = (side["refusal"].get("reason") for side in (value, target))
    return names_what_is_missing(reason, expected, target.get("prompt"))


def _list_pieces(query: Any) -> list[_Piece]:
    if is_refusal(query):
        return [_Piece("/refusal", "", "refusal", "")]
    if not isinstance(query, dict):
        return []
    steps = query.get("steps")
    pieces = [piece for i, step in enumerate(steps if isinstance(steps, list) else ()) for piece in _of_step(step, i)]
    if "timeframe" in query:
        pieces.append(_Piece("/timeframe", "", "timeframe", meaning_text(query["timeframe"])))
    return pieces


def _of_step(step: Any, i: int) -> Iterator[_Piece]:
    conditions = step.get("conditions") if isinstance(step, dict) else None
    said = set()
    for j, condition in enumerate(conditions if isinstance(conditions, list) else ()):
        field = canonical_text(condition.get("field") if isinstance(condition, dict) else condition)
        text = meaning_text(canonical_condition(condition))
        if text not in said:
            said.add(text)
            yield _Piece(f"/steps/{i}/conditions/{j}", str(i), field, text)


def _compare_queries(given: list[_Piece], expected: list[_Piece]) -> Iterator[Part]:
    """Pair the conditions of each step: equal ones are right, wherever they stand; then those on one field pair."""
    missing = list(expected)
    rights = [_take(missing, piece, lambda p: (p.step, p.text, p.field)) for piece in given]
    for piece, right in zip(given, rights, strict=True):
        yield Part(piece.path, right, True, right or _take(missing, piece, lambda p: (p.step, p.field)))
    yield from (Part(piece.path, False, False, True) for piece in missing)


def _take(pieces: list[_Piece], wanted: _Piece, key: Callable[[_Piece], Any]) -> bool:
    """Take the first piece with the key of the wanted one out of the list; return whether there was one."""
    found = next((piece for piece in pieces if key(piece) == key(wanted)), None)
    if found is not None:
        pieces.remove(found)
    return found is not None
