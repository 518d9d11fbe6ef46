"""Name a run: by --run, else after its data, its adapter or its schemas."""

from __future__ import annotations

import re
from pathlib import Path

from schema_student.core.errors import SettingsError
from schema_student.core.settings import AnySettings

SHARED_FOLDERS = ("eval", "alignment", "reference_logps")  # of all runs, where a run would have its own


def resolve_run(settings: AnySettings) -> str:
    """Name the run: --run, else after --data-set, the run of --adapter, --schemas, else "student".

    Raises SettingsError for a name whose folders belong to others: those of all runs, or another run's DPO.
    """
    named = (
        _file_name(settings.data.data_set) or adapter_run(settings.student.adapter) or _file_name(settings.run.schemas)
    )
    run = settings.run.run or named or "student"
    if run in SHARED_FOLDERS or run.endswith("-dpo"):
        names = f"{', '.join(SHARED_FOLDERS)} and names that end in -dpo"
        raise SettingsError(f"{run!r} cannot name a run, as {names} are folders of other runs; give another --run")
    return run


def adapter_run(adapter: str) -> str:
    """Name the run of an adapter .../student_runs/RUN[-dpo]/checkpoint-N; "" for adapters from elsewhere."""
    parts = Path(adapter).parts
    if len(parts) >= 3 and parts[-3] == "student_runs" and parts[-1].startswith("checkpoint-"):
        return parts[-2].removesuffix("-dpo")
    return ""


def _file_name(source: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).stem).strip("-._")
