"""List the adapters of an output folder, and find the newest one for `--adapter latest`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.links import REWARD, split_link
from schema_student.core.log import log
from schema_student.core.paths import finished_at
from schema_student.core.setting_groups import LATEST
from schema_student.core.settings import AnySettings

# What trains would take what it has made itself.
OF_VERBS = ("ask", "chat", "evaluate", "export", "parity", "report", "serve")
S = TypeVar("S", bound=AnySettings)


def list_adapters(settings: AnySettings) -> list[Path]:
    """List the adapters that runs of the output folder ended with, the newest first; no reward models."""
    finals = (Path(settings.run.output_dir) / "student_runs").glob("*/checkpoint-final")
    whole = [folder for folder in finals if (folder / "adapter_config.json").is_file()]
    students = [folder for folder in whole if split_link(folder.parent.name)[1] != REWARD]
    return sorted(students, key=lambda folder: (finished_at(folder), str(folder)), reverse=True)


def describe_adapters(settings: AnySettings) -> str:
    """Say for a message which adapters there are."""
    found = ", ".join(map(str, list_adapters(settings)))
    return f"there are: {found}" if found else f"there is none in {settings.run.output_dir}"


def name_latest_adapter(settings: S, verbs: Sequence[str]) -> S:
    """Put the newest adapter's folder in place of "latest": of the output folder, or of the run that is named.

    Raises UserError with the others where there is none, and SettingsError for verbs that train.
    """
    if settings.student.adapter != LATEST:
        return settings
    if {*verbs} - {*OF_VERBS}:
        raise SettingsError(f"--adapter {LATEST} is of {', '.join(OF_VERBS)}: name the folder here")
    run = settings.run.run
    found = [each for each in list_adapters(settings) if run in ("", split_link(each.parent.name)[0])]
    if not found:
        of_run = f" of run {run}" if run else ""
        raise UserError(f"--adapter {LATEST}: no run has ended with an adapter{of_run}; {describe_adapters(settings)}")
    _say_latest(found[0])
    return settings.changed(adapter=str(found[0]))


@cache
def _say_latest(adapter: Path) -> None:
    """Say it once: a command line is read several times."""
    log.info(f"--adapter {LATEST}: {adapter}, finished {finished_at(adapter) or 'at an unknown time'}")
