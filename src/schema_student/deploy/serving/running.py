"""Note which servers run here, for those who want to ask one: a file for each, removed at its end.

A file may stay behind where a server was killed: whoever reads it asks the server for its health.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schema_student.core.files import make_folder
from schema_student.core.jsonl import Row, write_json

FOLDER = "serving"


@contextmanager
def note_running(output_dir: Path, port: int, facts: Row) -> Iterator[None]:
    """Note a server in outputs/serving/PORT.json while it runs."""
    note = make_folder(output_dir / FOLDER) / f"{port}.json"
    write_json(note, {**facts, "pid": os.getpid()})
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
