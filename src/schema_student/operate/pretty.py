"""Write a run's JSONL artifacts as indented JSON for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schema_student.core.jsonl import number_rows, write_json
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings


def write_pretty(settings: AnySettings) -> list[Path]:
    """Write each of a run's JSONL artifacts as indented JSON for people, *_json fields unfolded; returns where."""
    where, written = paths(settings), []
    for path in where.jsonl_files():
        rows = [{key: _unfold(key, value) for key, value in row.items()} for _, row in number_rows(path)]
        owner = path.parent.name if path.parent.parent == where.evals else where.run_dir.name
        written.append(where.pretty / f"{owner}-{path.stem}.json")
        write_json(written[-1], rows)
    return written


def _unfold(key: str, value: Any) -> Any:
    if not (key.endswith("_json") and isinstance(value, str)):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
