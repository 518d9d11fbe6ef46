"""Read how a run's exports compare with their adapter: parity.json, for the report's table."""

from __future__ import annotations

from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_object
from schema_student.core.paths import Paths

RATES = ("schema_valid_rate", "right_rate", "same_verdict", "same_answer")
ADAPTER = ("adapter_schema_valid_rate", "adapter_right_rate")


def read_exports(where: Paths) -> Row | None:
    """Read the places that were compared, the adapter first, each with its rates; None where none were.

    Raises UserError for a file that holds something else.
    """
    path = where.exports / "parity.json"
    if not path.is_file():
        return None
    found = read_object(path, adapter=str, prompts=int, targets=dict)
    rows = [_read_target(name, target, path) for name, target in found.get("targets", {}).items()]
    if not rows:
        return None
    own = dict(zip(RATES, (rows[0][name] for name in ADAPTER), strict=False))
    adapter = {"name": "the adapter (float32)", **dict.fromkeys(RATES), **own, "undone": False}
    return {"adapter": found.get("adapter"), "prompts": found.get("prompts"), "rows": [adapter, *rows]}


def _read_target(name: str, target: Row, path: Path) -> Row:
    if not isinstance(target, dict) or not all(_is_rate(target.get(rate)) for rate in (*RATES, *ADAPTER)):
        raise UserError(f"{path}: {name} must hold rates; remove the file, or measure again by schema-student parity")
    rates = {rate: target[rate] for rate in (*RATES, *ADAPTER)}
    return {"name": name, **rates, "undone": bool(target.get("undone"))}


def _is_rate(found: object) -> bool:
    numbers = ("rate", "low", "high")
    return isinstance(found, dict) and all(isinstance(found.get(name), (int, float)) for name in numbers)
