"""Read what a person asks: a schema by file, inline or by its id in a run; many requests as JSONL; ask the teacher too.

A line of JSONL is {query, schema? or schema_id?, current_date?}; what it leaves out is what the command line names.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import Row
from schema_student.core.names import resolve_run
from schema_student.core.paths import paths
from schema_student.core.records import BuiltSchema, DatasetRow, read_rows
from schema_student.core.settings import AnySettings, nearest_name
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.judging import judge_value
from schema_student.schema.parsing import parse_strict
from schema_student.schema.rendering import completion_text
from schema_student.schema.user_schemas import open_schema, read_schema, read_schema_text
from schema_student.student.ask import Answer, Question
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherFailure


class QuestionReader:
    """Finds the schema of each question: its own, that of a run by its id, or the one that all share."""

    def __init__(self, settings: AnySettings, schema: str = "", schema_id: str = "") -> None:
        self.settings, self._schema, self._schema_id = settings, schema, schema_id

    def read_line(self, line: bytes, where: str) -> Question:
        """Read a question from a line of JSONL; raises UserError that begins with `where`."""
        try:
            row, problem = parse_strict(line.decode("utf-8-sig").strip())
            if problem or not isinstance(row, dict):
                raise UserError(f"not JSON: {problem}" if problem else "a row is a JSON object")
            return self._read_row(row)
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 at byte {error.start}") from None
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    def _read_row(self, row: Row) -> Question:
        for name in ("query", "schema_id", "current_date"):
            if not isinstance(row.get(name, ""), str):
                raise UserError(f"{name} must be text")
        if not row.get("query"):
            raise UserError("no query in it: a row is {query, schema? or schema_id?, current_date?}")
        schema = self._own_schema(row["schema"]) if "schema" in row else self.schema(row.get("schema_id", ""))
        return Question(schema, row["query"], read_day(row.get("current_date", "")))

    def _own_schema(self, document: Any) -> CompiledSchema:
        own = self.settings.own_schemas
        return compile_schema(open_schema(document, "schema", own.openapi_nullable, own.draft))

    def schema(self, schema_id: str = "") -> CompiledSchema:
        """Find a run's schema by its id, else the one that was named for all; raises UserError where there is none."""
        if schema_id or not self._schema:
            return self._schema_of_run(schema_id or self._schema_id)
        return self._shared

    @property
    def name(self) -> str:
        """Name the schema that all share: by its id in the run, or its file."""
        if not self._schema:
            return self._schema_id or next(iter(self._schemas_of_run), "schema")
        return "schema" if is_inline(self._schema) else Path(self._schema).stem

    @cached_property
    def _shared(self) -> CompiledSchema:
        own, text = self.settings.own_schemas, self._schema
        if is_inline(text):
            schema = read_schema_text(text, "--schema", own.openapi_nullable, own.draft)
        else:
            schema = read_schema(Path(text).expanduser(), own.openapi_nullable, own.draft)
        return compile_schema(schema, "--schema")

    def _schema_of_run(self, schema_id: str) -> CompiledSchema:
        known, run = self._schemas_of_run, resolve_run(self.settings)
        if not known:
            raise UserError(f"run {run} has no schemas here: give --schema FILE or inline JSON, or another --run")
        if schema_id in known or (not schema_id and len(known) == 1):
            return compile_schema(known[schema_id or next(iter(known))], schema_id or "schema")
        if not schema_id:
            some = ", ".join(list(known)[:5])
            raise UserError(
                f"run {run} has {len(known)} schemas: name one by --schema-id ({some}, ...), or give --schema"
            )
        raise UserError(f"run {run} has no schema {schema_id!r}{nearest_name(schema_id, known, 'its schemas')}")

    @cached_property
    def _schemas_of_run(self) -> dict[str, Row]:
        where = paths(self.settings)
        if where.dataset.exists():
            return {row.schema_id: row.schema for row in read_rows(where.dataset, DatasetRow)}
        return (
            {row.schema_id: row.schema for row in read_rows(where.schemas, BuiltSchema)}
            if where.schemas.exists()
            else {}
        )


def is_inline(schema: str) -> bool:
    """Return whether a text is a schema itself, or what was meant to be one, and no file's name."""
    return schema.lstrip()[:1] in ("{", "[")


def read_day(text: str) -> str | None:
    """Read a day as YYYY-MM-DD, None for none; raises UserError for what is no day."""
    try:
        return date.fromisoformat(text).isoformat() if text else None
    except ValueError:
        raise SettingsError(f"{text!r} is no day: give it as YYYY-MM-DD") from None


def ask_teacher(questions: Sequence[Question], settings: AnySettings) -> list[Answer]:
    """Ask the teacher the same questions; what it gives no usable answer to is a problem of that answer."""
    compiled = [_compiled(question) for question in questions]
    asks = [
        ("answer", {"schema": schema.schema, "query": question.request, "current_date": question.day})
        for question, schema in zip(questions, compiled, strict=True)
    ]
    with open_teacher(settings) as teacher:
        found = teacher.ask_many(asks)
    return [_as_answer(*pair) for pair in zip(found, compiled, strict=True)]


def _compiled(question: Question) -> CompiledSchema:
    return question.schema if isinstance(question.schema, CompiledSchema) else compile_schema(question.schema)


def _as_answer(found: Row | TeacherFailure, schema: CompiledSchema) -> Answer:
    if isinstance(found, TeacherFailure):
        return Answer(None, False, (), "", 0, 0.0, f"the teacher gave no usable answer: {found.reason}")
    verdict = judge_value(found, schema)
    return Answer(found, verdict.schema_valid, verdict.violations, completion_text(found), 0, 0.0)
