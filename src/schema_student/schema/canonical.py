"""Write an answer in canonical form: two answers have the same one where they say the same."""

from __future__ import annotations

import json
from typing import Any

from schema_student.schema.query_dsl import is_query_dsl
from schema_student.schema.structure import resolve


def canonical(value: Any, schema: dict[str, Any]) -> str:
    """Write what a value says as text: equal texts say the same.

    For the query DSL (`"x-dsl": "query"`) the steps' conditions, whatever their order within a step, and the timeframe;
    that it refuses, whatever its words. For any other schema the value without optional properties that equal their
    default. 1.0 and 1 are one number.
    """
    return canonical_text(_canonical_query(value) if is_query_dsl(schema) else without_defaults(value, schema, schema))


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
    return sorted((canonical_condition(condition) for condition in conditions), key=canonical_text)


def canonical_condition(condition: Any) -> Any:
    """Sort the list value of a condition: it names a set, whose order says nothing."""
    if isinstance(condition, dict) and isinstance(condition.get("value"), list):
        return condition | {"value": sorted(condition["value"], key=canonical_text)}
    return condition


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
    return canonical_text(value) == canonical_text(schema["default"])
