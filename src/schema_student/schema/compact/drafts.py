"""Read a schema of any draft as one of today's keywords, with its shared parts as named definitions.

What decides no verdict is dropped, but for descriptions and defaults: identifiers, annotations, keywords that the draft
does not know. A part that is referred to once stands where it is used; others get a name, and are referred to by it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from schema_student.schema.compact.words import FORMATS
from schema_student.schema.structure import ANNOTATIONS, references_of

Schema = Any  # a JSON object or a boolean

MAX_INLINED = 12  # levels, from where on what is referred to gets a name even if it is used once

ONE = ("additionalProperties", "items", "contains", "propertyNames", "not", "if", "then", "else")
UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies")
IN_PLACE = ("$ref", *SEVERAL[:3], "if", "dependentSchemas", "dependencies")  # whose evaluations count for the whole
VALUES = (
    *("type", "enum", "const", "format", "pattern", "minLength", "maxLength", "required", "uniqueItems", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"),
    *("minProperties", "maxProperties", "minContains", "maxContains", "dependentRequired"),
)
KNOWN = {*ONE, *UNEVALUATED, *SEVERAL, *NAMED, *VALUES}
DRAFT_YEARS = {"draft-04": 4, "draft-06": 6, "draft-07": 7, "2019-09": 2019, "2020-12": 2020}
SINCE = {
    **dict.fromkeys(("const", "contains", "propertyNames", "contentEncoding", "contentMediaType"), 6),
    **dict.fromkeys(("if", "then", "else"), 7),
    **dict.fromkeys((*UNEVALUATED, "dependentSchemas", "dependentRequired", "minContains", "maxContains"), 2019),
    "prefixItems": 2020,
}
# Formats that the validator checks from a draft on; the others it always checks.
FORMATS_SINCE = {
    **dict.fromkeys(("json-pointer", "uri-reference", "uri-template"), 6),
    **dict.fromkeys(("iri", "iri-reference", "idn-hostname", "relative-json-pointer"), 7),
    **dict.fromkeys(("duration", "uuid"), 2019),
}
UNTIL_7 = ("contentEncoding", "contentMediaType")  # which say nothing from 2019-09 on


@dataclass
class Document:
    """A schema and its definitions, which are referred to as {"$ref": "@name"}, the schema itself as "#"."""

    root: Schema
    definitions: dict[str, Schema] = field(default_factory=dict)


def read_document(schema: dict[str, Any]) -> Document:
    """Read a schema that compiles."""
    return _Reader(schema).read_document()


def draft_year(schema: dict[str, Any]) -> int:
    """Return the number of an old draft, or the year of a new one."""
    named = str(schema.get("$schema", ""))
    return next((year for name, year in DRAFT_YEARS.items() if name in named), 2020)


class _Reader:
    """Reads one schema: counts the uses of each part, then rewrites what is reachable."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root, self.year, self.references = root, draft_year(root), references_of(root)
        self.uses: Counter[int] = Counter()
        self.targets: dict[int, str] = {}  # id of what is referred to -> the last part of a reference
        self.names: dict[int, str] = {id(root): "root"}
        self.waiting: list[dict[str, Any]] = []
        self.has_unevaluated = False
        self._count()

    def _count(self) -> None:
        waiting: list[Schema] = [self.root]
        while waiting:
            node = waiting.pop()
            if not isinstance(node, dict):
                continue
            self.uses[id(node)] += 1
            if self.uses[id(node)] == 1:
                waiting += self._children(node)

    def _children(self, node: dict[str, Any]) -> Iterator[Schema]:
        if self.references.names_something(node):
            target = self.references.target(node)
            self.targets.setdefault(id(target), node["$ref"])
            yield target
            node = self.references.siblings(node)
        for key, child in node.items():
            if not self._knows(key):
                continue
            self.has_unevaluated |= key in UNEVALUATED
            if key in SEVERAL or (key == "items" and isinstance(child, list)):
                yield from child
            elif key in NAMED:
                yield from child.values()
            elif key in ONE or key in UNEVALUATED or key == "additionalItems":
                yield child

    def _knows(self, key: str) -> bool:
        if key in UNTIL_7:
            return 6 <= self.year <= 7
        return (key in KNOWN or key == "additionalItems") and self.year >= SINCE.get(key, 0)

    def read_document(self) -> Document:
        document = Document(self._rewrite(self.root, 0))
        while self.waiting:
            node = self.waiting.pop(0)
            document.definitions[self.names[id(node)]] = self._rewrite(node, 0)
        return document

    def _read(self, node: Schema, depth: int) -> Schema:
        """Read a part: by its name where it is a shared one."""
        if not isinstance(node, dict):
            return node
        if id(node) in self.targets and (self.uses[id(node)] > 1 or depth > MAX_INLINED):
            name = self._name(node)
            return {"$ref": "#" if name == "root" else f"@{name}"}
        return self._rewrite(node, depth)

    def _name(self, node: dict[str, Any]) -> str:
        """Name a definition by the last part of a reference to it."""
        if id(node) not in self.names:
            words = re.split(r"[/#]", unquote(self.targets[id(node)]).rstrip("/#"))
            last = "".join(words[-2:]) if words[-1].isdigit() else words[-1]
            name = re.sub(r"[^\w.<>+$-]+", "_", last.removesuffix(".json")) or "part"
            taken = set(self.names.values())
            numbers = (number for number in range(2, len(taken) + 3) if f"{name}{number}" not in taken)
            self.names[id(node)] = f"{name}{next(numbers)}" if name in taken else name
            self.waiting.append(node)
        return self.names[id(node)]

    def _rewrite(self, node: dict[str, Any], depth: int) -> Schema:
        own = self.references.siblings(node) if "$ref" in node else node
        schema = {key: self._part(key, child, depth + 1) for key, child in own.items() if self._knows(key)}
        self._modernize(schema, node)
        _settle_unevaluated(schema, "$ref" in node)
        self._settle_additional(schema)
        schema |= _notes(own, self.year)
        if isinstance(node.get("$ref"), str):
            return self._conjoin(schema, node, depth)
        return _unwrap(schema)

    def _part(self, key: str, child: Any, depth: int) -> Any:
        if key in SEVERAL or (key == "items" and isinstance(child, list)):
            return [self._read(part, depth) for part in child]
        if key in NAMED:
            return {name: self._read(part, depth) for name, part in child.items()}
        if key in ONE or key in UNEVALUATED or key == "additionalItems":
            return self._read(child, depth)
        return child

    def _modernize(self, schema: dict[str, Any], node: dict[str, Any]) -> None:
        """Say in today's keywords what older drafts said in others."""
        additional = schema.pop("additionalItems", None)
        if isinstance(schema.get("items"), list):
            schema["prefixItems"] = schema.pop("items")
            schema |= {} if additional is None else {"items": additional}
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
                schema[exclusive] = schema.pop(bound)
        if schema.get("format") not in FORMATS or FORMATS_SINCE.get(schema.get("format", ""), 0) > self.year:
            schema.pop("format", None)

    def _settle_additional(self, schema: dict[str, Any]) -> None:
        """Drop that anything may be additional, unless what is unevaluated elsewhere could depend on it."""
        if schema.get("additionalProperties") in (True, {}):
            schema["additionalProperties"] = True
            if not self.has_unevaluated:
                del schema["additionalProperties"]

    def _conjoin(self, schema: dict[str, Any], node: dict[str, Any], depth: int) -> Schema:
        """The conjunction of what a $ref names and of what stands beside it."""
        if not self.references.names_something(node):
            return {"$ref": node["$ref"], **schema}  # a metaschema, which the validator has with it
        target = self._read(self.references.target(node), depth + 1)
        if isinstance(target, bool):
            return schema if target else False
        if "$ref" in target:
            return {**target, **schema}
        return _unwrap({**schema, "allOf": [*schema.get("allOf", ()), target]})


def _notes(node: dict[str, Any], year: int) -> dict[str, Any]:
    """Keep what a writer of instances wants to know though it decides no verdict."""
    notes = {"default": node["default"]} if "default" in node else {}
    form, said = node.get("format"), node.get("description")
    unchecked = isinstance(form, str) and (form not in FORMATS or FORMATS_SINCE.get(form, 0) > year)
    words = ([said] if isinstance(said, str) and said else []) + ([f"({form})"] if unchecked else [])
    return notes | ({"description": " ".join(words)} if words else {})


def _unwrap(schema: dict[str, Any]) -> Schema:
    """Take a single alternative, or a conjunction of one, out of its list."""
    if "allOf" in schema:
        schema["allOf"] = [part for part in schema["allOf"] if part is not True and part != {}]
        if not schema["allOf"]:
            del schema["allOf"]
    for key in ("allOf", "anyOf", "oneOf"):
        if len(schema.get(key, ())) == 1 and not schema.keys() - ANNOTATIONS - {key}:
            only, notes = schema[key][0], {k: v for k, v in schema.items() if k != key}
            if key != "allOf" and isinstance(only, dict) and ("const" in only or "enum" in only):
                continue  # a named constant, which stands on a line of its own
            return only if only is False else notes if only is True else {**only, **notes}
    return schema


def _settle_unevaluated(schema: dict[str, Any], refers: bool) -> None:
    """Say by plainer keywords what is unevaluated where no alternative or condition decides it."""
    if refers or any(key in schema for key in IN_PLACE):
        return
    for key, plain in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
        if key in schema and not (plain == "items" and "contains" in schema):
            schema.setdefault(plain, schema.pop(key))
            schema.pop(key, None)
