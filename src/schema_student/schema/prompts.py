"""Render the student's prompt, in one place.

Every stage that shows a schema and a request to a student calls it, so that the tokens of a prompt are the same in SFT,
DPO, evaluation and serving. The chat template is applied in one place too: student.tokens.encode_prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schema_student.core.log import log
from schema_student.core.records import DatasetRow
from schema_student.schema.rendering import render_schema

INSTRUCTION = "Write one JSON object that obeys the schema and answers the request."
BY_HEART = "Write one JSON object that answers the request."  # the schema is not shown: the student has learned it


def render_prompt(schema: dict[str, Any], query: str, current_date: str, rendering: str = "compact") -> str:
    """Render the user turn: instruction, schema, date, request, so that requests of a schema share a prefix.

    >>> print(render_prompt({"type": "object", "properties": {"n": {"type": "integer"}}}, "two", "2026-01-31"))
    Write one JSON object that obeys the schema and answers the request.
    Schema:
    n? integer
    * any
    Date: 2026-01-31
    Request: two
    """
    shown = f"{INSTRUCTION}\nSchema:\n{render_schema(schema, rendering)}" if rendering != "none" else BY_HEART
    return f"{shown}\nDate: {current_date}\nRequest: {query}"


def warn_by_heart(schemas: Iterable[str], rendering: str) -> None:
    """Warn where several schemas are to be known by heart: no prompt says which of them is meant."""
    count = len(set(schemas)) if rendering == "none" else 1
    if count > 1:
        log.warning(
            f"--schema-rendering none shows no schema, and there are {count}: no prompt says which of them is meant. "
            "It is made for one schema; take compact or json for several"
        )


def render_repair(problems: Iterable[str]) -> str:
    """Render the turn that shows a student what is wrong with its answer, and asks for it again."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    return f"This answer is not valid:\n{listed}\nWrite the whole JSON object again, corrected."


def render_row_prompt(row: DatasetRow, rendering: str) -> str:
    """Render the prompt of a row of d_03."""
    return render_prompt(row.schema, row.query, str(row.current_date or ""), rendering)
