"""Explain why a value is not valid: violations with path, keyword, message and rank."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jsonschema_rs import ValidationError

from schema_student.schema.ranks import WRONG_PROPERTIES, WRONG_TYPE, WRONG_VALUE
from schema_student.schema.structure import json_pointer

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


def explain_error(error: ValidationError) -> list[Violation]:
    """Explain one of the validator's errors; a union's failure is told by its nearest alternative."""
    context = error.kind.as_dict().get("context")
    if context and all(context):
        return _explain_union(error, context)
    message = error.message
    if error.kind.name == "falseSchema":
        message = "nothing is allowed here"
    if error.kind.name == "enum":
        message = _one_of(error.instance, error.kind.as_dict()["options"])
    return [Violation(json_pointer(error.instance_path), error.kind.name, _shorten(message))]


def _explain_union(error: ValidationError, context: list[list[ValidationError]]) -> list[Violation]:
    """Violations of the alternative that came nearest; all constants or all types are told as one list."""
    path, keyword = json_pointer(error.instance_path), error.kind.name
    constants = [_constants(branch) for branch in context]
    if all(constants):
        allowed = [constant for branch in constants for constant in branch]
        return [Violation(path, keyword, _shorten(_one_of(error.instance, allowed)))]
    branches = [[violation for inner in branch for violation in explain_error(inner)] for branch in context]
    mistyped = [any(v.path == path and v.keyword == "type" for v in branch) for branch in branches]
    if all(mistyped):
        types = [inner.kind.as_dict().get("types", []) for branch in context for inner in branch]
        names = ", ".join(dict.fromkeys(name for group in types for name in group))
        return [Violation(path, "type", _shorten(f"{_shown(error.instance)} is not of any of the types {names}"))]
    return max(branches, key=lambda branch: _nearness(branch, path))


def _nearness(branch: list[Violation], path: str) -> tuple[bool, bool, int, int]:
    """Nearer is greater: the right type, then the right tag (a constant property), then milder and fewer faults."""
    mistyped = any(v.path == path and v.keyword == "type" for v in branch)
    constants = [v for v in branch if v.keyword in ("const", "enum", "oneOf")]
    mistagged = any(v.path.rpartition("/")[0] == path != v.path for v in constants)
    return not mistyped, not mistagged, min(v.rank for v in branch), -len(branch)


def _constants(branch: list[ValidationError]) -> list[Any]:
    """The constants that an alternative allows, if that is all that it failed for."""
    kinds = [error.kind.as_dict() for error in branch if error.kind.name in ("const", "enum")]
    others = [error for error in branch if error.kind.name not in ("const", "enum", "type")]
    return [] if others else [value for kind in kinds for value in kind.get("options", [kind.get("expected_value")])]


def _one_of(instance: Any, allowed: list[Any]) -> str:
    names = list(dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in allowed))
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{_shown(instance)} is not one of {', '.join(names[:12])}{more}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _shorten(message: str) -> str:
    half = MAX_MESSAGE // 2
    return message if len(message) <= MAX_MESSAGE else f"{message[:half]} ... {message[-half:]}"


def json_type(value: Any) -> str:
    """Name the JSON type of a value, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
