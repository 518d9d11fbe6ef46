"""Write an answer in canonical form: two answers have the same one where they say the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from schema_student.schema.free_text import with_utc
from schema_student.schema.query_dsl import is_query_dsl
from schema_student.schema.structure import resolve


def canonical(value: Any, schema: dict[str, Any]) -> str:
    """Write what a value says as text: equal texts say the same.

    For the query DSL (`"x-dsl": "query"`) the steps' conditions, whatever their order within a step and however often
    they are repeated, and the timeframe; that it refuses, whatever its words. For any other schema the value without
    optional properties that equal their default. 1.0 and 1 are one number, Z and +00:00 one zone.
    """
    said = _canonical_query(value) if is_query_dsl(schema) else without_defaults(value, schema, schema)
    return meaning_text(said)


def meaning_text(value: Any) -> str:
    """Write a JSON value as canonical text in which date-times of one zone have one form."""
    return canonical_text(_in_utc(value))


def _in_utc(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_utc(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_in_utc(child) for child in value]
    return with_utc(value) if isinstance(value, str) else value


def canonical_text(value: Any) -> str:
    """Write a JSON value as text, the same for all orders of keys and for 1.0 and 1."""
    return json.dumps(_whole_as_integers(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _whole_as_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_as_integers(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_whole_as_integers(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The query DSL


def _canonical_query(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "refusal" in value:
        return {"refusal": True}
    steps = value.get("steps")
    said = [{"conditions": _canonical_conditions(step)} for step in steps] if isinstance(steps, list) else steps
    return {"steps": said} | ({"timeframe": value["timeframe"]} if "timeframe" in value else {})


def _canonical_conditions(step: Any) -> Any:
    conditions = step.get("conditions") if isinstance(step, dict) else step
    if not isinstance(conditions, list):
        return conditions
    return _as_set(canonical_condition(condition) for condition in conditions)


def canonical_condition(condition: Any) -> Any:
    """Sort the list value of a condition: it names a set, of which order and repetition say nothing."""
    if isinstance(condition, dict) and isinstance(condition.get("value"), list):
        return condition | {"value": _as_set(condition["value"])}
    return condition


def _as_set(values: Iterable[Any]) -> list[Any]:
    by_text = {meaning_text(value): value for value in values}
    return [by_text[text] for text in sorted(by_text)]


# Any other schema


def without_defaults(value: Any, schema: Any, root: dict[str, Any]) -> Any:
    """Drop the optional properties that equal their default."""
    schema = resolve(schema, root)
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [without_defaults(child, schema["items"], root) for child in value]
    if not isinstance(value, dict):
        return value
    properties, kept = schema.get("properties", {}), {}
    for key, child in value.items():
        rule = resolve(properties.get(key), root)
        if key in schema.get("required", ()) or not _is_default(child, rule):
            kept[key] = without_defaults(child, rule, root)
    return kept


def _is_default(value: Any, schema: Any) -> bool:
    if not isinstance(schema, dict) or "default" not in schema:
        return False
    return meaning_text(value) == meaning_text(schema["default"])
