"""Schemas that several tests judge by: the query DSL with three fields, and real requests."""

import json
from typing import Any

from hypothesis import strategies as st

from schema_student.core.resources import CHECKOUT, DATA_DIR

BFCL = CHECKOUT / "examples" / "bfcl" / "simple.jsonl"
BFCL_ROWS = [json.loads(line) for line in BFCL.read_text(encoding="utf-8").splitlines()]


def _choice(*constants: str) -> dict[str, Any]:
    return {"oneOf": [{"const": constant, "description": f"the {constant}"} for constant in constants]}


def _guard(name: str, constant: str, then: dict[str, Any], otherwise: dict[str, Any] | None = None) -> dict[str, Any]:
    rule = {
        "if": {"properties": {name: {"const": constant}}, "required": [name]},
        "then": {"properties": {"value": then}},
    }
    return rule | ({"else": {"properties": {"value": otherwise}}} if otherwise else {})


def _one_or_many(schema: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"type": "array"}, "then": {"items": schema}, "else": schema}


def _query_schema() -> dict[str, Any]:
    schema = json.loads((DATA_DIR / "schema_template.json").read_text(encoding="utf-8"))
    condition = schema["properties"]["steps"]["items"]["properties"]["conditions"]["items"]
    condition["properties"]["field"] = _choice("color", "price", "day")
    condition["properties"]["operator"] = _choice("is", "over", "among")
    condition["allOf"] = [
        _guard("field", "color", _one_or_many(_choice("red", "blue"))),
        _guard("field", "price", _one_or_many({"type": "number"})),
        _guard("field", "day", _one_or_many({"type": "string", "format": "date"})),
        _guard("operator", "among", {"type": "array", "minItems": 1}, {"type": ["string", "number"]}),
    ]
    return schema


QUERY_SCHEMA = _query_schema()

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


def query(*conditions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A query of one step."""
    steps = [{"name": "s", "conditions": list(conditions), "description": "d"}]
    return {"prompt": "p", "steps": steps, **more}


def condition(field: str, operator: str, value: Any) -> dict[str, Any]:
    """One condition of a step."""
    return {"field": field, "operator": operator, "value": value}


# Two closed schemas of one property, for questions of several schemas.
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ROOM = {
    "type": "object",
    "properties": {"beds": {"type": "integer"}},
    "required": ["beds"],
    "additionalProperties": False,
}
