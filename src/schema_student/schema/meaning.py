"""Whether two answers mean the same, whatever their form."""

from __future__ import annotations

import json
import re
from typing import Any

from schema_student.schema.structure import resolve


def canonical(value: Any, schema: dict[str, Any]) -> str:
    """What a value means, as text: equal texts mean the same.

    For the query DSL (`"x-dsl": "query"`) the steps' conditions, whatever their order within a step, and the timeframe;
    that it refuses, whatever its words. For any other schema the value without optional properties that equal their
    default. 1.0 and 1 are one number.
    """
    is_query = schema.get("x-dsl") == "query"
    return _dump(_normal(_query_meaning(value) if is_query else _without_defaults(value, schema, schema)))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _query_meaning(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "refusal" in value:
        return {"refusal": True}
    steps = value.get("steps")
    meaning = [{"conditions": _conditions(step)} for step in steps] if isinstance(steps, list) else steps
    return {"steps": meaning} | ({"timeframe": value["timeframe"]} if "timeframe" in value else {})


def _conditions(step: Any) -> Any:
    conditions = step.get("conditions") if isinstance(step, dict) else step
    if not isinstance(conditions, list):
        return conditions
    return sorted((_sorted_value(condition) for condition in conditions), key=lambda item: _dump(_normal(item)))


def _sorted_value(condition: Any) -> Any:
    """A list value names a set: its order means nothing."""
    if isinstance(condition, dict) and isinstance(condition.get("value"), list):
        return condition | {"value": sorted(condition["value"], key=lambda item: _dump(_normal(item)))}
    return condition


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _normal(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_normal(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_defaults(value: Any, schema: Any, root: dict[str, Any]) -> Any:
    schema = resolve(schema, root)
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [_without_defaults(child, schema["items"], root) for child in value]
    if not isinstance(value, dict):
        return value
    properties, kept = schema.get("properties", {}), {}
    for key, child in value.items():
        rule = resolve(properties.get(key), root)
        if key in schema.get("required", ()) or not _is_default(child, rule):
            kept[key] = _without_defaults(child, rule, root)
    return kept


def _is_default(value: Any, schema: Any) -> bool:
    if not isinstance(schema, dict) or "default" not in schema:
        return False
    return _dump(_normal(value)) == _dump(_normal(schema["default"]))


def matches(value: Any, target: Any, schema: dict[str, Any], accepted: dict[str, list[Any]] | None = None) -> bool:
    """Whether a value means what the target means, or has every argument among the accepted alternatives.

    `accepted` is {property: [alternatives]}; "" among them means that the argument may be left out, and properties of
    nested objects have alternatives of their own. Strings are compared as the Berkeley Function Calling Leaderboard
    compares them.

    >>> matches({"unit": "Km"}, None, {}, {"unit": ["km"], "round": ["", 2]})
    True
    """
    if target is not None and canonical(value, schema) == canonical(target, schema):
        return True
    return accepted is not None and _accepts(value, accepted)


def nearest_target(value: Any, target: Any, accepted: dict[str, list[Any]] | None) -> Any:
    """The accepted answer nearest to a value: the target, but the value's own where an alternative allows that.

    >>> nearest_target({"unit": "Km"}, {"unit": "m", "n": 3, "round": 2}, {"unit": ["km", "m"], "round": ["", 2]})
    {'unit': 'Km', 'n': 3}
    """
    if not accepted or not isinstance(value, dict) or not isinstance(target, dict):
        return target
    fine = {key for key, options in accepted.items() if _accepts_property(value, key, options)}
    kept = {**target, **{key: value[key] for key in fine if key in value}}
    return {key: child for key, child in kept.items() if key in value or key not in fine}


def _accepts(value: Any, alternatives: Any) -> bool:
    """Whether a value is one that an alternative stands for; an object's properties have lists of alternatives."""
    if isinstance(alternatives, dict):
        return (
            isinstance(value, dict)
            and value.keys() <= alternatives.keys()
            and all(_accepts_property(value, key, options) for key, options in alternatives.items())
        )
    if isinstance(alternatives, list):
        return (
            isinstance(value, list)
            and len(value) == len(alternatives)
            and all(_accepts(v, a) for v, a in zip(value, alternatives, strict=True))
        )
    if isinstance(value, str) and isinstance(alternatives, str):
        return _plain(value) == _plain(alternatives)
    return isinstance(value, bool) == isinstance(alternatives, bool) and bool(value == alternatives)


def _accepts_property(value: dict[str, Any], key: str, options: Any) -> bool:
    options = options if isinstance(options, list) else [options]
    return any(_accepts(value[key], option) for option in options) if key in value else "" in options


def _plain(text: str) -> str:
    """BFCL's standardize_string: without spaces and , . / - _ * ^, in lower case, with one kind of quote."""
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
