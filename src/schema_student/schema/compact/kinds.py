"""Say which types of values a schema takes, and whether two schemas share one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from schema_student.schema.compact.words import json_text

ALL = frozenset(("string", "number", "boolean", "null", "array", "object"))
SPEAKS_OF = {  # keyword -> the one type that it speaks of
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems"), "array"),
    **dict.fromkeys(("contains", "minContains", "maxContains"), "array"),
    **dict.fromkeys(("properties", "patternProperties", "additionalProperties", "required", "propertyNames"), "object"),
    **dict.fromkeys(("minProperties", "maxProperties", "dependentRequired", "dependentSchemas"), "object"),
    "dependencies": "object",
}
MAX_FOLLOWED = 2  # references and alternatives


@dataclass(frozen=True)
class Kinds:
    """The types of the values that a schema may take, and the values themselves where they are few."""

    types: frozenset[str]
    values: frozenset[str] | None = None  # as JSON text

    def is_disjoint(self, other: Kinds) -> bool:
        """Return whether no value is of both, as far as can be seen."""
        both_listed = self.values is not None and other.values is not None
        return not self.types & other.types or (both_listed and not (self.values or set()) & (other.values or set()))


def kinds_of(schema: Any, definitions: dict[str, Any], followed: int = 0) -> Kinds:
    """Say which types of values a schema may take; all where that cannot be seen."""
    if not isinstance(schema, dict):
        return Kinds(ALL if schema else frozenset())
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return Kinds(frozenset(map(type_of, values)), frozenset(map(equal_text, values)))
    found = ALL
    if "type" in schema:
        found &= {"number" if name == "integer" else name for name in type_names(schema["type"])}
    if str(schema.get("$ref", "")).startswith("@") and followed < MAX_FOLLOWED:
        found &= kinds_of(definitions.get(schema["$ref"][1:], True), definitions, followed + 1).types
    for key in ("anyOf", "oneOf"):
        if key in schema and followed < MAX_FOLLOWED:
            found &= frozenset().union(*(kinds_of(o, definitions, followed + 1).types for o in schema[key]))
    return Kinds(found)


def are_disjoint(kinds: Iterable[Kinds]) -> bool:
    """Return whether no two of them share a value, as far as can be seen."""
    listed = list(kinds)
    return all(a.is_disjoint(b) for i, a in enumerate(listed) for b in listed[:i])


def type_names(types: Any) -> list[str]:
    """List the types that the keyword `type` names."""
    return [types] if isinstance(types, str) else list(types)


def type_of(value: Any) -> str:
    """Name the JSON type of a value; integers are numbers."""
    names = {bool: "boolean", str: "string", list: "array", dict: "object", type(None): "null"}
    return names.get(type(value), "number")


def is_of_type(value: Any, types: Any) -> bool:
    """Return whether a value is of one of the types that the keyword `type` names."""
    names = type_names(types)
    if type_of(value) != "number":
        return type_of(value) in names
    return "number" in names or ("integer" in names and (isinstance(value, int) or value.is_integer()))


def equal_text(value: Any) -> str:
    """Write a value so that equal ones are written alike: 1.0 and 1 are one number."""
    is_whole = isinstance(value, float) and value.is_integer()
    return json_text(int(value) if is_whole else value)
