"""Say what is wrong with a value, and where: Violation, its rank, and the parts of its message."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from schema_student.schema.ranks import WRONG_PROPERTIES, WRONG_TYPE, WRONG_VALUE

MAX_MESSAGE = 300  # characters
UNEXPECTED = ("additionalProperties", "unevaluatedProperties", "propertyNames", "falseSchema")
KEYWORD_RANKS = {
    **dict.fromkeys(("type", "additionalItems", "unevaluatedItems"), WRONG_TYPE),
    **dict.fromkeys(("required", *UNEXPECTED), WRONG_PROPERTIES),
}


@dataclass(frozen=True)
class Violation:
    """What is wrong where: a JSON Pointer ("" is the root), the keyword that was violated, a message for people."""

    path: str
    keyword: str
    message: str

    @property
    def rank(self) -> int:
        """Rank the violation: WRONG_TYPE, WRONG_PROPERTIES or WRONG_VALUE."""
        return KEYWORD_RANKS.get(self.keyword, WRONG_VALUE)


def list_options(value: Any, options: list[Any]) -> str:
    """Say that a value is none of the options, of which at most twelve are named."""
    names = list(dict.fromkeys(json.dumps(option, ensure_ascii=False) for option in options))
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return shorten(f"{show_value(value)} is not one of {', '.join(names[:12])}{more}")


def show_value(value: Any) -> str:
    """Show a value as JSON, cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def shorten(message: str) -> str:
    """Cut the middle out of a message that is too long."""
    half = MAX_MESSAGE // 2
    return message if len(message) <= MAX_MESSAGE else f"{message[:half]} ... {message[-half:]}"


def json_type(value: Any) -> str:
    """Name the JSON type of a value, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


class Fault(NamedTuple):
    """A violation, and what it costs to repair: the number of values that have to be written anew."""

    violation: Violation
    cost: int = 1


def make_fault(path: str, keyword: str, message: str, cost: int = 1) -> Fault:
    """Make a fault; a message that is too long is cut."""
    return Fault(Violation(path, keyword, shorten(message)), cost)


def count_values(value: Any) -> int:
    """Count the values that a value is made of: 1 for a scalar and for an empty object or array."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(count_values, children)) or 1
