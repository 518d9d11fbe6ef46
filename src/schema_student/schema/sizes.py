"""Measure how large the instances of a schema are at least: what is larger than any answer that is made is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from schema_student.schema.structure import json_pointer, references_of

MAX_VALUES = 3000  # that an instance is made of
MAX_CHARACTERS = 100_000  # of all its texts
MAX_NESTING = 200  # levels of the schema that are measured


class Size(NamedTuple):
    """What the instances of a part hold at least, and where most of it is asked for."""

    values: int = 1
    characters: int = 0
    where: str = ""

    @property
    def excess(self) -> float:
        """How many times larger than what is made; above 1 it is too large."""
        return max(self.values / MAX_VALUES, self.characters / MAX_CHARACTERS)

    @property
    def order(self) -> tuple[float, int]:
        """By what sizes are compared."""
        return self.excess, self.characters


def find_excess(schema: dict[str, Any]) -> str:
    """Find why all instances of a schema are larger than what is made: "/items/minLength: an answer ...", or "".

    The schema's numbers are such as a double holds.
    """
    size = measure_least(schema)
    if size.excess <= 1:
        return ""
    asked = ((size.values, MAX_VALUES, "values"), (size.characters, MAX_CHARACTERS, "characters"))
    number, most, what = next(entry for entry in asked if entry[0] > entry[1])
    shown = f"{number:,}" if number < 10**18 else "more than 10^18"
    return f"{size.where}: every answer would have at least {shown} {what}, too many to teach (at most {most:,})"


def measure_least(schema: dict[str, Any]) -> Size:
    """Measure what each instance of a schema holds at least; a bound from below, not what some instance has.

    >>> measure_least({"type": "array", "minItems": 3, "items": {"type": "string", "minLength": 5}})
    Size(values=4, characters=15, where='/minItems')
    """
    return _Measure(schema).measure(schema, "")


class _Measure:
    """Measures the parts of one schema; one that comes back to itself counts as a single value there."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.references = references_of(root)
        self.sizes: dict[int, Size] = {}

    def measure(self, part: Any, path: str, nesting: int = 0) -> Size:
        if not isinstance(part, dict) or nesting > MAX_NESTING:
            return Size()
        if id(part) not in self.sizes:
            self.sizes[id(part)] = Size()
            self.sizes[id(part)] = max(self._asked(part, path, nesting + 1), key=lambda size: size.order)
        return self.sizes[id(part)]

    def _asked(self, part: dict[str, Any], path: str, nesting: int) -> Iterator[Size]:
        """List the sizes that hold together: of what is referred to, of allOf, of the keywords themselves."""
        if self.references.names_something(part):
            yield self.measure(self.references.target(part), f"{path}/$ref", nesting)
            part = self.references.siblings(part)
        for i, inner in enumerate(part.get("allOf", ())):
            yield self.measure(inner, f"{path}/allOf/{i}", nesting)
        for keyword in ("anyOf", "oneOf"):
            options = (
                self.measure(one, f"{path}/{keyword}/{i}", nesting) for i, one in enumerate(part.get(keyword, ()))
            )
            yield min(options, key=lambda size: size.order, default=Size())
        yield self._own(part, path, nesting)

    def _own(self, part: dict[str, Any], path: str, nesting: int) -> Size:
        """Measure what the keywords ask of the one type that they allow; where none is named, of that they speak of."""
        if "enum" in part or "const" in part:
            return Size()
        if "minLength" in part and part.get("type", "string") == "string":
            return Size(1, int(part["minLength"]), f"{path}/minLength")
        if {"minItems", "minContains"} & part.keys() and part.get("type", "array") == "array":
            return self._list(part, path, nesting)
        if {"minProperties", "required"} & part.keys() and part.get("type", "object") == "object":
            return self._object(part, path, nesting)
        return Size()

    def _list(self, part: dict[str, Any], path: str, nesting: int) -> Size:
        keyword = max(
            ("minItems", "minContains" if "contains" in part else "minItems"), key=lambda key: part.get(key, 0)
        )
        count = int(part.get(keyword, 0))
        item = self.measure(part.get("items") if "prefixItems" not in part else None, f"{path}/items", nesting)
        where = item.where if item.excess > 1 else f"{path}/{keyword}"
        return Size(1 + count * item.values, count * item.characters, where)

    def _object(self, part: dict[str, Any], path: str, nesting: int) -> Size:
        names, properties = part.get("required", ()), part.get("properties", {})
        names = names if isinstance(names, list) else ()  # draft 3 wrote true
        sizes = [
            self.measure(properties.get(name), f"{path}/properties{json_pointer([name])}", nesting) for name in names
        ]
        more = max(0, int(part.get("minProperties", 0)) - len(sizes))
        largest = max(sizes, key=lambda size: size.order, default=Size())
        own = f"{path}/{'minProperties' if more else 'required'}"
        where = largest.where if largest.excess > 1 else own
        return Size(1 + sum(size.values for size in sizes) + more, sum(size.characters for size in sizes), where)
