"""Find and remove what runs have left, kind by kind; never outside the output folder, never what is being made.

    found = find_removable(settings, ["training"])        # [Removable(path, bytes)]
    remove(found, out)

Folders are removed by core/files.remove_folder alone. What a link leads to stays: the link itself is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.files import refuse_link, remove_folder
from schema_student.core.links import LINKS, REWARD
from schema_student.core.locks import hold_lock
from schema_student.core.names import resolve_run
from schema_student.core.replacing import draft_of
from schema_student.core.settings import Settings
from schema_student.core.stamps import beside
from schema_student.operate.status import find_runs, measure, read_status

KINDS = ("dataset", "training", "evaluations", "alignment", "exports")
REST = ("reports", "sweeps", "rollouts", "corrections", "chat", "latest", "runs")  # what --all takes of a run besides
DATA = ("d_01_*", "d_02_*", "d_03_*", "d_04_*")


@dataclass(frozen=True)
class Removable:
    """A file, folder or link below the output folder, and how large it is."""

    path: Path
    bytes: int


def find_removable(settings: Settings, kinds: Sequence[str]) -> list[Removable]:
    """Find what these kinds of artifacts of --run, or of every run, have left; "all": everything of theirs.

    Raises UserError where the output folder is a link, SettingsError where --run names a folder of all runs.
    """
    out, run = Path(settings.run.output_dir), settings.run.run
    refuse_link(out)
    runs = [resolve_run(settings)] if run else find_runs(out)
    if "all" in kinds and not run:
        paths = [path for path in sorted(out.glob("*")) if path.name != ".gitignore"]
    else:
        kinds = (*KINDS, *REST) if "all" in kinds else kinds
        paths = list(dict.fromkeys(path for kind in kinds for name in runs for path in _places(out, name, kind)))
    return [Removable(path, measure(path)) for path in paths if path.exists() or path.is_symlink()]


def _places(out: Path, run: str, kind: str) -> Iterator[Path]:
    """The files and folders of one kind of a run's artifacts, with what stands beside each."""
    students, pairs = out / "student_runs", out / "student_runs" / "alignment"
    if kind == "dataset":
        folder = out if run == "student" else out / "data" / run
        yield from (path for pattern in DATA for path in sorted(folder.glob(pattern)))
        if run != "student":
            yield folder
    elif kind == "training":
        yield from _with_signs(students / run)
        yield from _with_signs(students / f"{run}-{REWARD}")
    elif kind == "evaluations":
        yield from (path for path in sorted((students / "eval").glob(f"{run}-*")) if _is_of(path.name, run, out))
    elif kind == "alignment":
        yield from (path for link in LINKS for path in _with_signs(students / f"{run}-{link}"))
        own = (
            sorted(pairs.iterdir()) if run == "student" and pairs.is_dir() and not pairs.is_symlink() else [pairs / run]
        )
        yield from (path for path in own if run != "student" or path.is_file() or path.name == "reference_logps")
    elif kind == "exports":
        yield out / "exports" / run
    elif kind == "chat":
        yield out / "chat" / f"{run}.jsonl"
    elif kind == "latest":
        yield from (link for link in [out / "latest"] if link.is_symlink() and link.resolve().name == run)
    else:
        yield out / kind / run


def _with_signs(path: Path) -> Iterator[Path]:
    """An artifact, its stamps, its lock, and what was to replace it."""
    draft = draft_of(path)
    for place in (path, draft):
        yield from (place, beside(place, "meta"), beside(place, "partial"), place.with_name(f"{place.name}.lock"))


def _is_of(name: str, run: str, out: Path) -> bool:
    """Whether an evaluation NAME is of this run, and not of another one whose name begins with it."""
    longer = [other for other in find_runs(out) if other.startswith(f"{run}-") and name.startswith(f"{other}-")]
    return not longer


# ---------------------------------------------------------------------------------------------------------------------
# Removing


def refuse_running(settings: Settings) -> None:
    """Raise UserError where a run that would be removed is in progress."""
    for run in read_status(settings)["runs"]:
        working = [stage for stage in run["stages"] if stage["state"] == "running"]
        held = [lock for lock in run["locks"] if not lock["stale"]]
        if working or held:
            what = f"{working[0]['stage']} (process {working[0].get('pid')})" if working else held[0]["lock"]
            raise UserError(f"run {run['run']} is in progress: {what}; nothing was removed. Stop it first, or wait")


def remove(found: Sequence[Removable], out: Path) -> None:
    """Remove these files, folders and links; the lock of each artifact is held meanwhile.

    Raises UserError for what does not lie in the output folder, before anything is removed.
    """
    for each in found:
        check_inside(each.path, out)
    with ExitStack() as locks:
        for each in found:
            if each.path.parent == out / "student_runs" and each.path.is_dir() and not each.path.is_symlink():
                locks.enter_context(hold_lock(each.path))
        for each in found:
            if each.path.is_symlink() or each.path.is_file():
                each.path.unlink(missing_ok=True)
            else:
                remove_folder(each.path.parent, each.path.name)


def check_inside(path: Path, out: Path) -> None:
    """Raise UserError unless a path lies in the output folder, by way of no link and no ".."."""
    if ".." in path.relative_to(out).parts if path.is_relative_to(out) else True:
        raise UserError(f"{path} does not lie in {out}, so nothing was removed")
    for parent in path.parents:
        if parent == out:
            break
        refuse_link(parent)
    if not path.parent.resolve().is_relative_to(out.resolve()) or path.resolve() == out.resolve():
        raise UserError(f"{path} does not lie in {out}, so nothing was removed")
