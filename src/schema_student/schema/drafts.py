"""Say by which draft a schema is read, and what of it that draft does not read as it was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jsonschema_rs

from schema_student.schema.dynamic_references import find_dynamic_keyword
from schema_student.schema.structure import ANNOTATIONS, CONSTANTS

DRAFTS = (
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
DRAFT_NAMES = dict(zip(("4", "6", "7", "2019-09", "2020-12"), DRAFTS, strict=True))
NAMED_PARTS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
OLD_MARKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    '"definitions"': lambda node: isinstance(node.get("definitions"), dict),
    '"dependencies"': lambda node: isinstance(node.get("dependencies"), dict),
    '"additionalItems"': lambda node: "additionalItems" in node,
    '"items" as a list': lambda node: isinstance(node.get("items"), list),
    "a boolean exclusiveMinimum or exclusiveMaximum": lambda node: any(
        isinstance(node.get(key), bool) for key in ("exclusiveMinimum", "exclusiveMaximum")
    ),
}
ADVICE = "--draft says of which one it is"
BAD_TEXTS = ("\0 (", "a b", "%zz", "{", "[", ":", "\\")  # of which each format that is checked refuses one


def list_remarks(schema: dict[str, Any]) -> list[str]:
    """List what a reader of a schema should know: marks of older drafts, dynamic references, formats not checked."""
    marks, remarks = old_marks(schema), []
    if marks:
        beside = "; keywords beside a $ref are read" if any(map(_speaks_beside_reference, _nodes(schema))) else ""
        remarks.append(
            f'it has no "$schema" and is read as 2020-12{beside}, but has {marks} as older drafts do; {ADVICE}'
        )
    dynamic = find_dynamic_keyword(schema)
    if dynamic:
        remarks.append(f'what a "{dynamic}" of it names depends on the way there, so that the student reads it as JSON')
    draft = schema.get("$schema", DRAFTS[-1])
    formats = dict.fromkeys(node["format"] for node in _nodes(schema) if isinstance(node.get("format"), str))
    unchecked = [f'"{name}"' for name in formats if not is_format_checked(name, draft)]
    if unchecked:
        remarks.append(f"of its formats its draft does not check {', '.join(unchecked)}")
    return remarks


def name_draft(schema: Any, draft: str) -> Any:
    """Give a schema that has no $schema that of a draft; "" names none.

    >>> name_draft({"type": "object"}, "2020-12")
    {'$schema': 'https://json-schema.org/draft/2020-12/schema', 'type': 'object'}
    """
    return {"$schema": DRAFT_NAMES[draft]} | schema if draft and isinstance(schema, dict) else schema


def old_marks(schema: dict[str, Any]) -> str:
    """Name the marks of older drafts in a schema that names none, "" where there are none."""
    if "$schema" in schema:
        return ""
    nodes = list(_nodes(schema))
    return ", ".join(name for name, has in OLD_MARKS.items() if any(map(has, nodes)))


@cache
def is_format_checked(name: str, draft: str) -> bool:
    """Return whether the validator checks a format in a draft."""
    validator = jsonschema_rs.validator_for({"$schema": draft, "format": name}, validate_formats=True, offline=True)
    return not all(map(validator.is_valid, BAD_TEXTS))


def _speaks_beside_reference(node: dict[str, Any]) -> bool:
    return isinstance(node.get("$ref"), str) and not node.keys() <= {"$ref", *ANNOTATIONS}


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object of a schema that is a schema itself."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            for key, child in node.items():
                if key in NAMED_PARTS and isinstance(child, dict):
                    waiting += child.values()
                elif key not in CONSTANTS:
                    waiting.append(child)
