"""List the adapters of an output folder, and find the newest one for `--adapter latest`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
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
NEAR = ("", "*/", "student_runs/*/", "*/student_runs/*/")  # where checkpoints lie below a folder
FINAL = "checkpoint-final"  # what is meant where a run's folder is named
CLOSE, MOST = 0.6, 6  # likeness from which a path is meant; how many are named
S = TypeVar("S", bound=AnySettings)


def list_adapters(settings: AnySettings) -> list[Path]:
    """List the adapters that runs of the output folder ended with, the newest first; no reward models."""
    finals = (Path(settings.run.output_dir) / "student_runs").glob("*/checkpoint-final")
    return sorted(_keep_students(finals), key=lambda folder: (finished_at(folder), str(folder)), reverse=True)


def _keep_students(folders: Iterable[Path]) -> list[Path]:
    """Keep the folders that hold an adapter, but for those of reward models."""
    whole = [folder for folder in folders if (folder / "adapter_config.json").is_file()]
    return [folder for folder in whole if split_link(folder.parent.name)[1] != REWARD]


def describe_adapters(settings: AnySettings) -> str:
    """Say for a message which adapters there are."""
    found = ", ".join(map(str, list_adapters(settings)))
    return f"there are: {found}" if found else f"there is none in {settings.run.output_dir}"


def suggest_adapters(named: str) -> str:
    """Suggest adapters in place of a path that holds none: those nearest to it by name, of the runs that are near it.

    They are looked for below the deepest folder of the path that exists; "" where there is none.
    """
    path = Path(named)
    near = next(folder for folder in (path, *path.parents, Path()) if folder.is_dir())
    found = [folder for depth in NEAR for folder in near.glob(f"{depth}checkpoint-*")]
    names = [str(folder.relative_to(near)) for folder in _keep_students(found)]
    wanted = FINAL if near == path else str(path.relative_to(near))
    names.sort(key=lambda name: (-SequenceMatcher(None, wanted, name).ratio(), name))
    close = get_close_matches(wanted, names[:1], cutoff=CLOSE)
    others = ", ".join(str(near / name) for name in names[:MOST] if name not in close)
    meant = f"; did you mean {near / close[0]}?" if close else ""
    return f"{meant}{' There are' if meant else '; there are'}: {others}" if others else meant


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
