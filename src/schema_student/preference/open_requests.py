"""Read the requests that people have and nobody answered: --requests, a JSONL file.

A row is {query, schema | schema_id, current_date?, answer?, accepted?}: a schema of its own, or the id of one of the
run's. Where an answer is known it may stand there too, with the alternatives accepted for its properties.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, dump_row, number_rows
from schema_student.core.records import DatasetRow
from schema_student.core.splits import take_part
from schema_student.core.stamps import digest
from schema_student.data.questions import read_day
from schema_student.preference.requests import Request
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge_value
from schema_student.schema.prompts import render_row_prompt
from schema_student.schema.user_schemas import open_schema

FORM = "a row is {query, schema | schema_id, current_date?, answer?, accepted?}"


@dataclass(frozen=True)
class KnownRun:
    """What a run's d_03 says to requests that leave it out: schemas by their ids, and days to ask on."""

    schemas: dict[str, str]
    days: Sequence[str]

    @classmethod
    def of(cls, dataset: Sequence[DatasetRow]) -> KnownRun:
        """Collect it from the rows of d_03."""
        days = sorted({str(row.current_date) for row in dataset if row.current_date})
        return cls({row.schema_id: row.schema_json for row in dataset}, days)

    def day_of(self, query: str) -> str:
        """Draw a day for a request, always the same one; "" where the run has none."""
        return self.days[int(digest(query)[:8], 16) % len(self.days)] if self.days else ""


def read_open_requests(
    path: Path, dataset: Sequence[DatasetRow], rendering: str, max_samples: int = 0
) -> list[Request]:
    """Read the requests of a file, each with its prompt; raises UserError with file and line of a faulty one."""
    known, found = KnownRun.of(dataset), []
    for number, row in number_rows(path):
        try:
            made = _read_row(row, known)
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        found.append(Request(made, render_row_prompt(made, rendering)))
    if not found:
        raise UserError(f"{path} has no requests; {FORM}")
    return take_part(found, max_samples, f"requests of {path.name}")


def _read_row(row: Row, known: KnownRun) -> DatasetRow:
    query, day, accepted = row.get("query"), row.get("current_date") or "", row.get("accepted")
    if not query or not isinstance(query, str):
        raise UserError(f"no query in it; {FORM}")
    if accepted is not None and not isinstance(accepted, dict):
        raise UserError("accepted must be an object {property: [alternatives]}")
    schema_id, schema_json = _find_schema(row, known)
    answer = row.get("answer")
    _check_answer(answer, schema_json)
    return DatasetRow(
        schema_id=schema_id,
        schema_json=schema_json,
        query=query,
        current_date=read_day(str(day)) or known.day_of(query),
        ast_json=None if answer is None else dump_row(answer),
        is_valid=True,
        split="alignment",
        accepted=accepted,
        source="request",
    )


def _find_schema(row: Row, known: KnownRun) -> tuple[str, str]:
    """Find the id and the text of a row's schema: its own, else the run's of this id."""
    schema_id = row.get("schema_id", "")
    if "schema" in row:
        text = dump_row(open_schema(row["schema"], "schema"))
        return str(schema_id or digest(text)), text
    if schema_id not in known.schemas:
        raise UserError(f"no schema in it, and the run has none called {schema_id!r}; {FORM}")
    return schema_id, known.schemas[schema_id]


def _check_answer(answer: Any, schema_json: str) -> None:
    violations = () if answer is None else judge_value(answer, compile_schema(json.loads(schema_json))).violations
    if violations:
        raise UserError(f"its answer is not valid: {violations[0].path or '/'}: {violations[0].message}")
