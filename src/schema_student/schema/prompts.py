"""What the student reads and writes: the one renderer of a prompt, and of a completion."""

from __future__ import annotations

from typing import Any

from schema_student.schema.rendering import render_schema

INSTRUCTION = "Write one JSON object that obeys the schema and answers the request."


def render_prompt(schema: dict[str, Any], query: str, current_date: str, rendering: str = "compact") -> str:
    """The user turn: instruction, schema, date, request, in this order so that requests of a schema share a prefix.

    >>> print(render_prompt({"type": "object", "properties": {"n": {"type": "integer"}}}, "two", "2026-01-31"))
    Write one JSON object that obeys the schema and answers the request.
    Schema:
    n? integer
    Date: 2026-01-31
    Request: two
    """
    return f"{INSTRUCTION}\nSchema:\n{render_schema(schema, rendering)}\nDate: {current_date}\nRequest: {query}"
