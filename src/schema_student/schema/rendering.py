"""Render a schema for the student and the teacher: every prompt shows its schema by `render_schema`."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from schema_student.schema.compact.lines import write_lines


def completion_text(value: Any) -> str:
    """Render the assistant turn: compact JSON, keys in the order that the writer gave them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def render_schema(schema: dict[str, Any], rendering: str = "compact") -> str:
    """Render a schema as JSON, or one line a property: a quarter of the tokens, and names that stand alone.

    `json` drops only annotations that a writer does not need ($schema, x-...). `compact` writes
    `name? type = default # description`, nesting by indentation, and what it has no words for as JSON: the verdicts
    of the schema can be told from it (schema/compact/__init__.py has the language).
    """
    if rendering == "json":
        return completion_text({k: v for k, v in schema.items() if k != "$schema" and not k.startswith("x-")})
    if rendering != "compact":
        raise ValueError(f'a schema is rendered as "compact" or "json", not "{rendering}"')
    return _compact(completion_text(schema))


@lru_cache(maxsize=256)
def _compact(text: str) -> str:
    return write_lines(json.loads(text))
