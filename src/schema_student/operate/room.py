"""Say that a disk is full, and about how much more a run needs there.

estimate_disk(sizes, adapter=400_000)      # bytes of a run
explain_full_disk(error, settings)         # "outputs: the disk is full ..."
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.settings import AnySettings
from schema_student.operate.resolved import resolve_settings
from schema_student.operate.status import measure, say_bytes

BYTES_A_ROW = 17_000  # of a data set, its corpus and its card
CHECKPOINTS = 8  # of a run and its alignment
LEAST = 2**20  # bytes to ask for, where a run takes more than was estimated


def count_rows(sizes: Mapping[str, Any]) -> float:
    """Count the rows of a data set by resolved settings."""
    schemas, validation = sizes["domains"] * sizes["train_share"], 1 + sizes["validation_share"]
    return schemas * (sizes["train_queries"] * validation + sizes["pair_queries"]) + 2 * sizes["eval_queries"]


def estimate_disk(sizes: Mapping[str, Any], adapter: int) -> float:
    """Estimate the bytes of a run by resolved settings, and by those of an adapter."""
    return count_rows(sizes) * BYTES_A_ROW + CHECKPOINTS * 3 * adapter  # an optimizer's state is twice its weights


def explain_full_disk(error: BaseException, settings: AnySettings) -> str:
    """Explain a failure that comes of a full disk: where, and how much is missing."""
    out = Path(settings.run.output_dir)
    named = error.filename if isinstance(error, OSError) and error.filename else out
    disk = shutil.disk_usage(next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists()))
    missing = max(_estimate(settings, out) - measure(out) - disk.free, LEAST)
    return (
        f"{named}: the disk is full, or a limit reached (ulimit -f, quota): {say_bytes(disk.free)} of "
        f"{say_bytes(disk.total)} are free, and about {say_bytes(int(missing))} more are needed for {out}; make room, "
        "then run the same command to continue"
    )


def _estimate(settings: AnySettings, out: Path) -> float:
    adapters = [path.stat().st_size for path in out.glob("student_runs/*/*/adapter_model.safetensors")]
    with suppress(UserError, OSError):
        return estimate_disk(resolve_settings(settings.changed(dtype="float32")), max(adapters, default=0))
    return 0.0
