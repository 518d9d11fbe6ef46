"""Find where in its text an answer first goes wrong: what follows is often consistent with it, and not at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from schema_student.schema.grading import Grade
from schema_student.schema.structure import unescape_pointer

SPACE = re.compile(r"[ \t\n\r]*")
DECODER = json.JSONDecoder()


def end_of_first_fault(text: str, graded: Grade, right: Any) -> int:
    """Find where the first wrong value of an answer ends, in characters; the text's length where no place is known.

    A part that is missing is missed where what should hold it ends; text that is no JSON goes wrong where a parser
    gives up. Within a wrong part it is the first value that the right answer has otherwise in that place.

    >>> from schema_student.schema.compiling import compile_schema
    >>> from schema_student.schema.grading import grade
    >>> text, right = '{"n":3,"unit":"km","to":"Oslo"}', {"n": 3, "unit": "mile", "to": "Oslo"}
    >>> text[: end_of_first_fault(text, grade(text, compile_schema({}), right), right)]
    '{"n":3,"unit":"km"'
    """
    if graded.verdict.fences_stripped:
        return len(text)
    if not graded.verdict.parsed:
        return _where_parsing_ends(text)
    wrong = [part.path for part in graded.parts if not part.right] + [each.path for each in graded.verdict.violations]
    ends = [_end_of(text, _narrow(_steps(path), graded.verdict.value, right)) for path in wrong]
    return min(ends, default=len(text))


def _where_parsing_ends(text: str) -> int:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return min(error.pos + 1, len(text))
    return len(text)


def _steps(path: str) -> list[str]:
    return [unescape_pointer(step) for step in path.split("/")[1:]]


def _narrow(steps: list[str], value: Any, right: Any) -> list[str]:
    """Go on from a wrong object to the first of its properties that the right answer has otherwise."""
    value, right = _at(value, steps), _at(right, steps)
    if not (isinstance(value, dict) and isinstance(right, dict)):
        return steps
    differing = [key for key in value if key in right and value[key] != right[key]]
    return [*steps, differing[0]] if differing else steps


def _at(value: Any, steps: list[str]) -> Any:
    """The value at a place, None where there is none."""
    for step in steps:
        if isinstance(value, list):
            value = value[int(step)] if step.isdecimal() and int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _end_of(text: str, steps: list[str]) -> int:
    """Where a value ends in a JSON text, or what is nearest above it where it is not there."""
    start = _past_space(text, 0)
    end = DECODER.raw_decode(text, start)[1]
    for step in steps:
        found = next(((begin, stop) for name, begin, stop in _members(text, start) if name == step), None)
        if found is None:
            break
        start, end = found
    return end


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """The members of the object or array that begins at a place: key or index, where its value begins and ends."""
    opening, number = text[at], 0
    at = _past_space(text, at + 1)
    while opening in "{[" and text[at] not in "}]":
        name = str(number)
        if opening == "{":
            name, at = DECODER.raw_decode(text, at)
            at = _past_space(text, _past_space(text, at) + 1)
        _, end = DECODER.raw_decode(text, at)
        yield name, at, end
        at = _past_space(text, end)
        at, number = _past_space(text, at + 1) if text[at] == "," else at, number + 1


def _past_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    return match.end() if match else at
