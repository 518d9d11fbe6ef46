"""Log requests as rows that --schemas takes, for the next round of training; by request only.

What the student answered stands beside, under names of its own: it is not taken for the right answer.
"""

from __future__ import annotations

import os
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, dump_row
from schema_student.core.log import log
from schema_student.core.stamps import digest
from schema_student.deploy.serving.replies import Reply
from schema_student.deploy.serving.requests import Asked


class RequestLog:
    """A JSONL file that only its owner reads; "" for none. A disk that is full is said once, and stops no answer."""

    def __init__(self, path: str) -> None:
        self._path, self._failed = Path(path) if path else None, False
        if self._path:
            try:
                self._append("")
            except OSError as error:
                raise UserError(f"--log-requests {path}: {error.strerror}; name another file") from None

    def add(self, asked: Asked, reply: Reply) -> None:
        """Add a request to a schema; others are no rows of --schemas."""
        if self._path is None or asked.schema is None:
            return
        schema = asked.schema.compiled.schema
        row: Row = {"schema_id": f"served-{digest(schema)[:12]}", "schema": schema, "query": asked.query}
        row |= {"current_date": asked.day, "student_answer": reply.text, "student_valid": reply.valid}
        try:
            self._append(dump_row(row) + "\n")
        except OSError as error:
            if not self._failed:
                log.warning(f"{self._path}: {error.strerror}: requests are not logged")
            self._failed = True

    def _append(self, text: str) -> None:
        """Write a whole line at once, never through a link."""
        assert self._path is not None
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write(text)
