"""Name a run: by --run, else after its data, its adapter or its schemas."""

from __future__ import annotations

import re
from pathlib import Path

from schema_student.core.errors import SettingsError
from schema_student.core.links import LINKS, REWARD, split_link
from schema_student.core.setting_groups import RUN_NAME
from schema_student.core.settings import AnySettings

SHARED_FOLDERS = ("eval", "alignment", "reference_logps")  # of all runs, where a run would have its own


def resolve_run(settings: AnySettings) -> str:
    """Name the run: --run, else after --data-set, the run of --adapter, --schemas, else "student".

    Raises SettingsError where what it is named after gives no name that --run could be given, and for a name whose
    folders belong to others: those of all runs, or a link of another run's alignment.
    """
    run = settings.run.run or _name_after_source(settings)
    if run in SHARED_FOLDERS or split_link(run)[1]:
        names = (
            f"{', '.join(SHARED_FOLDERS)} and names that end in {', '.join(f'-{link}' for link in (*LINKS, REWARD))}"
        )
        raise SettingsError(f"{run!r} cannot name a run, as {names} are folders of other runs; give another --run")
    return run


def _name_after_source(settings: AnySettings) -> str:
    data_set, adapter, schemas = settings.data.data_set, settings.student.adapter, settings.run.schemas
    if data_set:
        return _checked(file_name(data_set), "--data-set", data_set)
    if run := adapter_run(adapter):
        return _checked(run, "--adapter", adapter)
    return _checked(file_name(schemas), "--schemas", schemas) if schemas else "student"


def _checked(name: str, flag: str, source: str) -> str:
    if not re.fullmatch(RUN_NAME, name):
        shown = source if len(source) <= 100 else f"{source[:100]}..."
        why = "letters, digits, dot, hyphen and underscore, at most 100 of them"
        raise SettingsError(f"{flag} {shown} gives no name of a run ({why}): give --run NAME")
    return name


def adapter_run(adapter: str) -> str:
    """Name the run of an adapter .../student_runs/RUN[-LINK]/checkpoint-N; "" for adapters from elsewhere."""
    parts = Path(adapter).parts
    if len(parts) >= 3 and parts[-3] == "student_runs" and parts[-1].startswith("checkpoint-"):
        return split_link(parts[-2])[0]
    return ""


def file_name(source: str) -> str:
    """Make a name of a path's last part, less its ending."""
    path = Path(source)
    return clean_name((path if path.name not in ("", "..") else path.resolve()).stem)


def clean_name(text: str) -> str:
    """Make a name of a text: what a name may not hold becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
