"""Say a schema of the query DSL in short: its lines leave out what its frame always demands.

What the frame demands: no empty text or list but for a step's description, a refusal or steps, values of their field's
type, a list exactly where the operator, by its description in the catalog, takes one, no end before its start. The line
of a field ends with the type of its values instead. Other schemas with these properties are said with "@root: ...".
"""

from __future__ import annotations

import re
from typing import Any

from schema_student.schema.compact.words import one_line
from schema_student.schema.query_dsl import build_schema, is_query_dsl, operator_catalog
from schema_student.schema.structure import shape

NAMES = ["prompt", "steps", "timeframe", "refusal"]
DATE_ORDER = [{"rule": "date_order", "path": "/timeframe", "start": "start", "end": "end"}]
_PLAIN = re.compile(r"[^\s|:()\"{}]+")  # a constant that can stand before a type, or among others


def has_frame(schema: dict[str, Any]) -> bool:
    """Return whether a schema is what `build_schema` makes of its own fields and operators."""
    if not is_query_dsl(schema) or schema.get("x-rules") != DATE_ORDER:
        return False
    try:
        condition = _condition(schema)
        operators = [_read_operator(option) for option in condition["properties"]["operator"]["oneOf"]]
        fields = _read_fields(condition)
        spec = {"domain": "", "description": "", "noun": {}, "fields": fields}
        return _are_plain(fields, operators) and shape(schema) == shape(build_schema(spec, operators))
    except (KeyError, TypeError, AttributeError, StopIteration):
        return False


def _condition(schema: dict[str, Any]) -> dict[str, Any]:
    condition: dict[str, Any] = schema["properties"]["steps"]["items"]["properties"]["conditions"]["items"]
    return condition


def _read_operator(option: dict[str, Any]) -> dict[str, str]:
    canonical = next(e["const"] for e in operator_catalog() if e["description"] == option["description"])
    return {**option, "canonical": canonical}


def _read_fields(condition: dict[str, Any]) -> list[dict[str, Any]]:
    guards = {
        rule["if"]["properties"]["field"]["const"]: rule["then"]["properties"]["value"]
        for rule in condition["allOf"]
        if "field" in rule["if"]["properties"]
    }
    return [_read_field(option, guards[option["const"]]) for option in condition["properties"]["field"]["oneOf"]]


def _read_field(option: dict[str, Any], guard: dict[str, Any]) -> dict[str, Any]:
    if "else" in guard:
        return {**option, "type": "enum", "enum": guard["else"]["oneOf"]}
    return {**option, "type": guard["items"].get("format", guard["items"]["type"])}


def _are_plain(fields: list[dict[str, Any]], operators: list[dict[str, str]]) -> bool:
    """Whether all can be read back from their lines."""
    choices = [choice for field in fields for choice in field.get("enum", ())]
    constants = [entry["const"] for entry in (*fields, *operators, *choices)]
    labels = [choice.get("description", "") for choice in choices]
    return all(map(_PLAIN.fullmatch, constants)) and not any("|" in label for label in labels)


def leave_out_frame(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the frame of a schema always demands; `root` is the schema as `read_document` reads it."""
    root = {key: part for key, part in root.items() if key not in ("if", "then", "else")}
    root["required"] = [*root["required"], "steps"]
    properties, step = root["properties"], root["properties"]["steps"]["items"]
    condition, refusal = step["properties"]["conditions"]["items"], properties["refusal"]["properties"]
    for part in (properties["prompt"], step["properties"]["name"], refusal["reason"], refusal["suggestion"]):
        part.pop("minLength", None)
    for part in (properties["steps"], step["properties"]["conditions"]):
        part.pop("minItems", None)
    del condition["allOf"]
    types = {field["const"]: _type_text(field) for field in _read_fields(_condition(schema))}
    for option in condition["properties"]["field"]["oneOf"]:
        option["says"] = types[option["const"]]
    return root


def _type_text(field: dict[str, Any]) -> str:
    return f"({'|'.join(map(labelled, field['enum']))})" if field["type"] == "enum" else str(field["type"])


def labelled(option: dict[str, Any], name: str = "") -> str:
    """A constant after each thing that people call it: a small student finds what follows a word, not what precedes.

    >>> labelled({"const": "price", "description": "cost / prix"})
    'cost: price / prix: price'
    """
    name, called = name or option["const"], one_line(str(option.get("description") or ""))
    return " / ".join(f"{words}: {name}" for words in called.split(" / ")) if called else name
