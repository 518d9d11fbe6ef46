"""Name the fields of artifacts that say when and how long; two runs of the same inputs on a CPU differ in no other.

take_out_times({"step": 2, "eval_loss": 0.5, "eval_runtime": 1.3})      # {"step": 2, "eval_loss": 0.5}
read_timeless(Path("training_metrics.jsonl"))                          # the file's bytes without such fields
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schema_student.core.jsonl import dump_row, read_json, read_jsonl
from schema_student.core.stamps import digest

TIMES = (
    *("finished_at", "written_at", "at", "seconds", "eval_runtime", "tokens_per_second"),
    *("seconds_percentiles", "tokens_per_second_percentiles", "teacher_cost"),
)
TIMED = (  # files with such fields, whose digests stand in stamps
    *("training_metrics.jsonl", "evaluation_results.jsonl", "evaluation_summary.json"),
)
META = ".meta.json"


def take_out_times(value: Any) -> Any:
    """Take the time fields, and the digests of files that have some, out of a value of JSON at any depth."""
    if isinstance(value, list):
        return [take_out_times(item) for item in value]
    if not isinstance(value, dict):
        return value
    of_timed = _is_timed(value.get("name"))  # {name: a file with such fields, digest: ...}
    return {
        name: take_out_times(each)
        for name, each in value.items()
        if name not in TIMES and not (isinstance(each, str) and (_is_timed(name) or (of_timed and name == "digest")))
    }


def _is_timed(name: Any) -> bool:
    return isinstance(name, str) and name.rpartition("/")[-1] in TIMED


def read_timeless(path: Path) -> bytes:
    """Read a file's bytes; of JSON and JSONL those of its values without the time fields."""
    if path.suffix == ".jsonl":
        return "\n".join(dump_row(take_out_times(row)) for row in read_jsonl(path)).encode()
    if path.suffix != ".json":
        return path.read_bytes()
    value = take_out_times(read_json(path))
    if path.name.removesuffix(META) in TIMED:
        value.pop("digest", None)
    return json.dumps(value, indent=2).encode()


def digest_timeless(path: Path) -> str:
    """Compute the SHA-256 of an artifact without its time fields: a file, or a folder's names and contents."""
    if not path.is_dir():
        return digest(read_timeless(path))
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[file.relative_to(path).as_posix(), digest(read_timeless(file))] for file in files])
