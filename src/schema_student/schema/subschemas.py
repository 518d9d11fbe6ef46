"""Address the parts of a schema, and validate against each of them in the context of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import jsonschema_rs
from jsonschema_rs import ValidationError

from schema_student.schema.structure import ANNOTATIONS, json_pointer, references_of

PLACE = "json-schema:///"  # where a schema lies that does not say where; its $id may be relative to it
ASSERTIONS = {
    *("type", "enum", "const", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType"),
    *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "required", "dependentRequired"),
}  # what a subschema says of a value by itself, not by other subschemas
RUN = 1000  # values that are checked at once
MAX_REFERENCES = 5000  # in a chain


class Subschema(NamedTuple):
    """A part of a schema: `Subschema("/properties/n", {"type": "integer"})`."""

    pointer: str
    schema: Any

    def child(self, *keys: str | int) -> Subschema:
        """Find the part below by its keys."""
        schema = self.schema
        for key in keys:
            schema = schema[key]
        return Subschema(self.pointer + json_pointer(keys), schema)

    def children(self, keyword: str) -> list[Subschema]:
        """List the subschemas of a keyword that holds a list of them."""
        found = self.schema.get(keyword) if isinstance(self.schema, dict) else None
        return [self.child(keyword, i) for i in range(len(found))] if isinstance(found, list) else []


class Subschemas:
    """The parts of one schema, each with its validator, which is made when it is first asked for.

    >>> parts = Subschemas({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}})
    >>> parts.is_valid(parts.root.child("items"), "2")
    False
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = Subschema("", root)
        self.dialect = {"$schema": root["$schema"]} if "$schema" in root else {}
        name = jsonschema_rs.validator_cls_for(self.dialect).__name__
        self.draft = int(name.removeprefix("Draft").removesuffix("Validator"))  # 4, 6, 7, 201909, 202012
        self.id_key = "id" if self.draft == 4 else "$id"
        self.base = _find_base(root.get(self.id_key))
        self._registry: jsonschema_rs.Registry | None = None
        self._validators: dict[str, jsonschema_rs.Validator] = {}
        self._pointers: dict[int, str] = {}

    def is_valid(self, part: Subschema, value: Any) -> bool:
        """Return whether a value obeys a part."""
        return self.validator(part).is_valid(value)

    def validator(self, part: Subschema) -> jsonschema_rs.Validator:
        """Find the validator of a part; one that cannot be compiled alone takes any value."""
        if part.pointer not in self._validators:
            self._validators[part.pointer] = self.compile(self.refer_to(part))
        return self._validators[part.pointer]

    def find_invalid(self, part: Subschema, values: list[Any]) -> Iterator[int]:
        """List the indices of the values that do not obey a part; whole runs of valid ones are passed at once."""
        key = f"{part.pointer} of each"
        if key not in self._validators:
            self._validators[key] = self.compile({"items": self.refer_to(part)})
        for start in range(0, len(values), RUN):
            run = values[start : start + RUN]
            if not self._validators[key].is_valid(run):
                yield from (start + i for i, value in enumerate(run) if not self.is_valid(part, value))

    def find_errors(self, part: Subschema, value: Any) -> list[ValidationError]:
        """List the errors of a value by what a part says without other subschemas."""
        key = f"{part.pointer} by itself"
        if key not in self._validators:
            said = {keyword: child for keyword, child in part.schema.items() if keyword in ASSERTIONS}
            self._validators[key] = self.compile({} if self._is_reference(part.schema) else said)
        validator = self._validators[key]
        return [] if validator.is_valid(value) else list(validator.iter_errors(value))

    def is_found(self, pattern: str, text: str) -> bool:
        """Return whether a pattern is found in a text."""
        key = f"pattern {pattern}"
        if key not in self._validators:
            self._validators[key] = self.compile({"pattern": pattern})
        return self._validators[key].is_valid(text)

    def resolve(self, part: Subschema) -> Subschema:
        """Follow the reference that is all that a part says of a value, and so on to what is none."""
        for _ in range(MAX_REFERENCES):
            target = self.target(part) if self._is_reference(part.schema) else None
            if target is None:
                return part
            part = target
        return part

    def find(self, schema: Any) -> Subschema | None:
        """Find the part that is this very object of the root, None where there is none."""
        if not self._pointers:
            self._pointers = {id(child.schema): child.pointer for child in _walk(self.root)}
        pointer = self._pointers.get(id(schema)) if isinstance(schema, dict) else None
        return None if pointer is None else Subschema(pointer, schema)

    def target(self, part: Subschema) -> Subschema | None:
        """Find what a part's $ref names, None where that is not known."""
        if not isinstance(part.schema, dict) or not isinstance(part.schema.get("$ref"), str):
            return None
        references = references_of(self.root.schema)
        if not references.names_something(part.schema):
            return None
        return self.find(references.target(part.schema))

    def refers_to_nothing(self, part: Subschema) -> bool:
        """Return whether a part's $ref names the schema that allows nothing: false."""
        references = references_of(self.root.schema)
        return references.names_something(part.schema) and references.target(part.schema) is False

    def _is_reference(self, schema: Any) -> bool:
        if not isinstance(schema, dict) or "$ref" not in schema:
            return False
        return self.draft < 201909 or schema.keys() <= {"$ref", *ANNOTATIONS}

    def refer_to(self, part: Subschema) -> dict[str, Any]:
        """Write a schema that refers to a part, for `compile`."""
        return {"$ref": f"{self.base}#{quote(part.pointer)}"}

    def _register(self) -> jsonschema_rs.Registry:
        named = {self.id_key: self.base} if self.id_key in self.root.schema else {}
        return jsonschema_rs.Registry([(self.base, self.root.schema | named)])

    def compile(self, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        """Compile a schema that may refer to parts of the root; one that cannot be compiled takes any value."""
        try:
            self._registry = self._registry or self._register()
            return jsonschema_rs.validator_for(
                self.dialect | schema, registry=self._registry, validate_formats=True, offline=True
            )
        except ValueError:
            return jsonschema_rs.validator_for({})


def _find_base(own: Any) -> str:
    """Find the URI of a schema by its $id."""
    if not isinstance(own, str) or own.startswith("#"):
        return f"{PLACE}root"
    address = own.partition("#")[0]
    return address if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address) else PLACE + address.lstrip("/")


def _walk(root: Subschema) -> Iterator[Subschema]:
    """Every object in a schema, without recursion: schemas nest deep."""
    left = [root]
    while left:
        part = left.pop()
        if isinstance(part.schema, dict):
            yield part
        if isinstance(part.schema, dict | list):
            keys = part.schema if isinstance(part.schema, dict) else range(len(part.schema))
            left += [part.child(key) for key in keys if isinstance(part.schema[key], dict | list)]
