"""Merge two flat schemas into their conjunction, which allows what both allow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from schema_student.schema.canonical import canonical_text
from schema_student.schema.instances.checking import is_found
from schema_student.schema.instances.dead_ends import DeadEnd

TYPES: dict[type, tuple[str, ...]] = {
    **{bool: ("boolean",), int: ("integer", "number"), str: ("string",)},
    **{list: ("array",), dict: ("object",), type(None): ("null",)},
}


def merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Merge two flat schemas into their conjunction, keyword by keyword; raises DeadEnd where nothing is left.

    >>> merge({"type": "number", "minimum": 1}, {"type": "integer", "minimum": 3})
    {'type': ['integer'], 'minimum': 3}
    """
    merged = {**b, **a}
    for key in a.keys() & b.keys():
        if key in CONJUNCTIONS:
            merged[key] = CONJUNCTIONS[key](a[key], b[key])
    if "properties" in a or "properties" in b:
        names = dict.fromkeys([*a.get("properties", {}), *b.get("properties", {})])
        merged["properties"] = {name: _both(property_schema(a, name), property_schema(b, name)) for name in names}
    if "type" in merged and merged["type"] == []:
        raise DeadEnd
    if "enum" in merged:
        merged["enum"] = [value for value in merged["enum"] if _fits_type(value, merged.get("type"))]
        if not merged["enum"]:
            raise DeadEnd
    return merged


def property_schema(flat: dict[str, Any], name: str) -> Any:
    """Find the schema of a property, whether it is listed, fits a pattern, or is additional."""
    if name in flat.get("properties", {}):
        return flat["properties"][name]
    fitting = [part for pattern, part in flat.get("patternProperties", {}).items() if is_found(pattern, name)]
    return {"allOf": fitting} if fitting else flat.get("additionalProperties", True)


def _both(a: Any, b: Any) -> Any:
    if a is False or b is False:
        return False
    if a is True or a == b:
        return b
    return a if b is True else {"allOf": [a, b]}


def _both_types(a: str | list[str], b: str | list[str]) -> list[str]:
    left, right = ([kind] if isinstance(kind, str) else kind for kind in (a, b))
    common = [kind for kind in left if kind in right or (kind == "integer" and "number" in right)]
    return common + (["integer"] if "integer" in right and "number" in left and "integer" not in common else [])


def _both_enums(a: list[Any], b: list[Any]) -> list[Any]:
    texts = {canonical_text(value) for value in b}
    return [value for value in a if canonical_text(value) in texts]


def _both_items(a: Any, b: Any) -> Any:
    both_lists = isinstance(a, list) and isinstance(b, list)
    return [_both(x, y) for x, y in zip(a, b, strict=False)] if both_lists else _both(a, b)


def _both_multiples(a: float, b: float) -> float:
    return math.lcm(a, b) if isinstance(a, int) and isinstance(b, int) else max(a, b)


CONJUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "type": _both_types,
    "enum": _both_enums,
    "required": lambda a, b: list(dict.fromkeys([*a, *b])),
    "items": _both_items,
    "additionalProperties": _both,
    "patternProperties": lambda a, b: {**a, **b},
    "multipleOf": _both_multiples,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "uniqueItems"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}


def _fits_type(value: Any, types: Any) -> bool:
    if types is None:
        return True
    own = TYPES.get(type(value), ("number",))
    if isinstance(value, float) and value.is_integer():
        own = ("number", "integer")
    return any(name in ([types] if isinstance(types, str) else types) for name in own)
