"""Check a value against a part of a schema."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs

from schema_student.schema.subschemas import Subschemas

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
    return _pattern_validator(pattern).is_valid(text)


@lru_cache(maxsize=4096)
def _pattern_validator(pattern: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for({"pattern": pattern})


class PartChecker:
    """Checks values against parts of one schema, and against schemas that are put together of them.

    >>> root = {"$defs": {"n": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/n"}}}
    >>> PartChecker(Subschemas(root)).is_valid({"allOf": [root["properties"]["n"]]}, "2")
    False
    """

    def __init__(self, parts: Subschemas) -> None:
        self.parts = parts
        # By id of the schema, which is held beside its validator so that the id stays its own.
        self.compiled: dict[int, tuple[Any, jsonschema_rs.Validator]] = {}

    def is_valid(self, schema: Any, value: Any) -> bool:
        """Return whether a value obeys a schema."""
        if id(schema) not in self.compiled:
            self.compiled[id(schema)] = schema, self._compile(schema)
        return self.compiled[id(schema)][1].is_valid(value)

    def _compile(self, schema: Any) -> jsonschema_rs.Validator:
        part = self.parts.find(schema)
        if part is not None:
            return self.parts.validator(part)
        return self.parts.compile(self._refer(schema) if isinstance(schema, dict) else {"allOf": [schema]})

    def _refer(self, schema: Any) -> Any:
        """The schema with its parts that stand in the root replaced by references to them."""
        if isinstance(schema, list):
            return [self._refer(child) for child in schema]
        part = self.parts.find(schema)
        if part is not None:
            return self.parts.refer_to(part)
        if not isinstance(schema, dict):
            return schema
        return {key: self._refer_below(key, child) for key, child in schema.items() if key not in UNCHECKED}

    def _refer_below(self, key: str, child: Any) -> Any:
        if key in ("const", "enum", "required", "dependentRequired"):
            return child
        if key in NAMED_PARTS and isinstance(child, dict):
            return {name: self._refer(part) for name, part in child.items()}
        return self._refer(child)
