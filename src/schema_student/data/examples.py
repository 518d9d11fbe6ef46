"""Write a row of the dataset as the example that a student learns from: its prompt, and the completion to learn."""

from __future__ import annotations

from schema_student.core.records import CorpusRow, DatasetRow
from schema_student.schema.prompts import render_row_prompt
from schema_student.schema.rendering import completion_text

KEPT = ("query", "current_date", "kind", "language", "accepted", "source", "teacher_model")


def make_example(row: DatasetRow, rendering: str) -> CorpusRow:
    """Make the corpus row of a row of d_03, with what is kept of its request."""
    return CorpusRow(
        schema_id=row.schema_id,
        domain=row.domain,
        prompt=render_row_prompt(row, rendering),
        completion=completion_text(row.target),
        is_valid=row.is_valid,
        split=row.split,
        extra={name: getattr(row, name) for name in KEPT},
    )
