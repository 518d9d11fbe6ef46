"""Check a value against a part of a schema."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import jsonschema_rs

from schema_student.schema.structure import resolve

CHECKED = {
    *("not", "oneOf", "allOf", "if", "$ref", "enum", "format", "multipleOf", "pattern", "minLength"),
    *("uniqueItems", "contains", "propertyNames", "minProperties", "maxProperties", "dependentSchemas"),
}  # what a draw can miss
UNCHECKED = {
    *("$schema", "$id", "$anchor", "$defs", "definitions", "default", "examples"),
    *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"),
}  # what says nothing about a value, or only in its place in the whole schema
NAMED_PARTS = ("properties", "patternProperties", "dependentSchemas")  # keywords whose keys are names, not keywords


def needs_check(schema: Any) -> bool:
    """Return whether a value drawn for a schema may miss what the schema asks for."""
    return isinstance(schema, dict) and not schema.keys().isdisjoint(CHECKED)


def is_found(pattern: str, text: str) -> bool:
    """Return whether a pattern is found in a text, by the validator's reading of patterns (ECMA 262)."""
    return _validator(json.dumps({"pattern": pattern})).is_valid(text)


class PartChecker:
    """Checks values against parts of one schema, in which recursive references count as obeyed.

    >>> root = {"$defs": {"n": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/n"}}}
    >>> PartChecker(root).is_valid(root["properties"]["n"], "2")
    False
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        # By id of the part, which is held beside its validator so that the id stays its own.
        self.compiled: dict[int, tuple[Any, jsonschema_rs.Validator]] = {}

    def is_valid(self, schema: Any, value: Any) -> bool:
        """Return whether a value obeys a part of the schema."""
        if id(schema) not in self.compiled:
            inlined = _inline(schema, self.root, frozenset())
            draft = {"$schema": self.root["$schema"]} if "$schema" in self.root else {}
            text = json.dumps(draft | inlined if isinstance(inlined, dict) else inlined)
            self.compiled[id(schema)] = schema, _validator(text)
        return self.compiled[id(schema)][1].is_valid(value)


@lru_cache(maxsize=4096)
def _validator(text: str) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(json.loads(text), validate_formats=True, offline=True)
    except ValueError:  # inlined references may nest deeper than the compiler goes; the end result is judged anyway
        return jsonschema_rs.validator_for({})


def _inline(schema: Any, root: dict[str, Any], seen: frozenset[str]) -> Any:
    """The schema with its references replaced by what they name; a reference inside itself allows anything."""
    if isinstance(schema, list):
        return [_inline(child, root, seen) for child in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        ref = schema["$ref"]
        return True if ref in seen else _inline(resolve(schema, root), root, seen | {ref})
    inlined = {}
    for key, child in schema.items():
        if key in ("const", "enum"):
            inlined[key] = child
        elif key in NAMED_PARTS:
            inlined[key] = {name: _inline(part, root, seen) for name, part in child.items()}
        elif key not in UNCHECKED:
            inlined[key] = _inline(child, root, seen)
    return inlined
