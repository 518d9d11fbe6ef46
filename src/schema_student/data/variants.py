"""Make variants of the user's own requests: the same words with other values, in the request and in its answer.

Real requests are few and their wording is what the teacher's lack; with other values in them a student learns to read
the values instead of learning the requests by heart.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from schema_student.schema.compiling import CompiledSchema
from schema_student.schema.judging import is_valid
from schema_student.schema.structure import merge_parts, parts_of

Draw = Callable[[str, dict[str, Any], Any, random.Random], Any]  # (property, its schema, old value) -> new one or None


def exchange_values(
    query: str, answer: Any, schema: CompiledSchema, draw: Draw, rng: random.Random
) -> tuple[str, Any] | None:
    """Exchange the values of an answer that stand in its request, once each and word for word; None where none does.

    Values of enum and const stay, and so does what the request says in other words.

    >>> from schema_student.schema.compiling import compile_schema
    >>> schema = compile_schema({"properties": {"n": {"type": "integer"}}})
    >>> exchange_values("take 5 of them", {"n": 5}, schema, lambda *_: 8, random.Random(0))
    ('take 8 of them', {'n': 8})
    """
    exchange = _Exchange(query, schema.schema, draw, rng)
    changed = exchange.walk(answer, schema.schema, "")
    text = exchange.text()
    return (text, changed) if text != query and is_valid(changed, schema) else None


class _Exchange:
    def __init__(self, query: str, root: dict[str, Any], draw: Draw, rng: random.Random) -> None:
        self.query, self.root, self.draw, self.rng = query, root, draw, rng
        self.made: dict[tuple[int, int], str] = {}  # place in the request -> what stands there instead

    def walk(self, value: Any, schema: Any, name: str) -> Any:
        parts = parts_of(value, schema, self.root)
        if isinstance(value, dict):
            properties = merge_parts(part.get("properties", {}) for part in parts)
            return {key: self.walk(child, properties.get(key, {}), key) for key, child in value.items()}
        if isinstance(value, list):
            items: Any = next((part["items"] for part in parts if isinstance(part.get("items"), dict)), {})
            return [self.walk(child, items, name) for child in value]
        flat = merge_parts(parts)
        return value if {"enum", "const"} & flat.keys() else self._exchange(name, flat, value)

    def _exchange(self, name: str, schema: dict[str, Any], value: Any) -> Any:
        place = None if isinstance(value, bool) or value in (None, "") else self._find(value)
        new = self.draw(name, schema, value, self.rng) if place else None
        if place is None or new is None or type(new) is not type(value):
            return value
        self.made[place] = self._write(place, new)
        return new

    def _find(self, value: Any) -> tuple[int, int] | None:
        """Find the one place where a value stands in the request, which no other value has taken."""
        texts = {str(value)}
        if isinstance(value, (int, float)):
            whole = int(value) if abs(value) < 1e12 and float(value).is_integer() else value
            texts |= {str(whole), f"{whole:,}"}
        found = {
            match.span()
            for text in texts
            for match in re.finditer(rf"(?<![\w.,-]){re.escape(text)}(?![\w%]|[.,]\d)", self.query)
        }
        if len(found) != 1:
            return None
        place = found.pop()
        return None if any(place[0] < end and start < place[1] for start, end in self.made) else place

    def _write(self, place: tuple[int, int], new: Any) -> str:
        old = self.query[place[0] : place[1]]
        if isinstance(new, float) and new.is_integer() and "." not in old:
            new = int(new)
        return f"{new:,}" if "," in old and isinstance(new, (int, float)) else str(new)

    def text(self) -> str:
        """Write the request with all that was exchanged."""
        text = self.query
        for (start, end), new in sorted(self.made.items(), reverse=True):
            text = text[:start] + new + text[end:]
        return text
