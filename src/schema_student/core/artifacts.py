"""Make artifacts: say that one is done already, refuse it, or continue where a killed run left it.

Stages meet only at these files. A finished artifact has `<artifact>.meta.json` beside it, written last: the settings,
seed, versions, git commit and input digests that made it. A stage that is run again finds its artifact finished (and
says so), made otherwise (and refuses), or partial (and continues after the last whole row).

    with open_artifact(paths(settings).corpus, make_stamp(settings, "prompt"), [paths(settings).dataset]) as artifact:
        if not artifact.done:
            for row in rows[len(artifact.rows):]:
                artifact.append(row)
            artifact.finish()
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, dump_row, maker, name_maker, read_json, read_jsonl, write_json
from schema_student.core.locks import hold_lock
from schema_student.core.log import log
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest, find_differences, git_commit, versions

_checks_only: ContextVar[bool] = ContextVar("checks_only", default=False)


class MadeOtherwiseError(UserError):
    """An artifact that other settings or inputs made, or began."""


class Checked(Exception):
    """Raised in place of making an artifact, where only_check has found that it could be made."""


class Artifact:
    """One artifact being made. `done`: it is there already. `rows`: the whole rows of a partial JSONL artifact."""

    def __init__(self, path: Path, stamp: dict[str, Any]) -> None:
        self.path = path
        self.stamp = stamp
        self.done = False
        self.rows: list[Row] = []
        self._file: TextIO | None = None

    def append(self, row: Row) -> None:
        """Write one row; it survives a kill from here on."""
        line = dump_row(row) + "\n"
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="\n")
        self._file.write(line)
        self._file.flush()

    def finish(self, extra: dict[str, Any] | None = None) -> None:
        """Mark the artifact finished: write its .meta.json, the last thing a step does."""
        self._close()
        if self.path.suffix == ".jsonl":
            self.path.touch()
        assert self.path.exists(), f"{self.path} was finished but not written"
        facts: dict[str, Any] = {"versions": versions(), "git_commit": git_commit()}
        facts["finished_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        if self.path.is_file():
            facts["digest"] = digest(self.path)
        write_json(_beside(self.path, "meta"), {**self.stamp, **facts, **(extra or {})})
        _beside(self.path, "partial").unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def open_artifact(
    path: Path, stamp: dict[str, Any], inputs: Sequence[Path] = (), overwrite: bool = False
) -> Iterator[Artifact]:
    """Hold an artifact's lock while it is made: a .jsonl file by rows, any other file or folder as a whole.

    Raises UserError where another process holds it, an input is missing or lies in it, or other settings made it.
    """
    _check_apart(path, inputs)
    stamp = json.loads(json.dumps({**stamp, "inputs": _input_digests(inputs)}))
    if _checks_only.get():
        yield _check(path, stamp, overwrite)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path):
        artifact = Artifact(path, stamp)
        if overwrite:
            _remove(path)
        _sweep(path)
        meta = read_meta(path)
        if meta and path.exists():
            _check_same(path, meta, stamp)
            artifact.done = True
            _beside(path, "partial").unlink(missing_ok=True)
            log.info(f"done already: {path} (finished {meta.get('finished_at')})")
        else:
            _begin(artifact)
        try:
            yield artifact
        finally:
            artifact._close()


def read_meta(path: Path) -> dict[str, Any] | None:
    """Read the .meta.json of an artifact; None where it is not finished."""
    meta = _beside(path, "meta")
    return read_json(meta) if meta.exists() else None


def make(stage: Callable[[], Any], settings: AnySettings, reads: Sequence[Path], writes: Sequence[Path]) -> bool:
    """Run a stage and return True; with --dry-run let it check all that it checks before it writes, and return False.

    Raises UserError as the stage would: for settings that do not fit what is there, an adapter of another base.
    """
    if not dry_run(settings, reads, writes):
        stage()
        return True
    if all(path.exists() for path in reads):
        with only_check(), suppress(Checked):
            stage()
    return False


@contextmanager
def only_check() -> Iterator[None]:
    """Let open_artifact check and write nothing: it raises Checked where an artifact is not finished."""
    token = _checks_only.set(True)
    try:
        yield
    finally:
        _checks_only.reset(token)


def _check(path: Path, stamp: dict[str, Any], overwrite: bool) -> Artifact:
    """The finished artifact; raises Checked where it is to be made, MadeOtherwiseError where it is another."""
    artifact, meta, partial = Artifact(path, stamp), read_meta(path), _beside(path, "partial")
    if overwrite or not path.exists():
        raise Checked
    if meta:
        _check_same(path, meta, stamp)
        artifact.done = True
        return artifact
    if partial.exists():
        _refuse_difference(path, "begun", read_json(partial), stamp)
    raise Checked


def dry_run(settings: AnySettings, reads: Sequence[Path], writes: Sequence[Path]) -> bool:
    """With --dry-run say what a script would read and write, and return True; else return False.

    Raises UserError for an input that is missing, unless an earlier stage of the same runner makes it.
    """
    if not settings.run.dry_run:
        return False
    earlier = os.environ.get("SCHEMA_STUDENT_SCRIPTS", "").split()
    missing = [path for path in reads if not path.exists() and maker(path) not in earlier]
    for path in reads:
        state = "present" if path.exists() else "MISSING" if path in missing else "an earlier stage makes it"
        log.info(f"would read  {path} ({state})")
    for path in writes:
        state = "finished" if read_meta(path) and path.exists() else "partial" if path.exists() else "absent"
        log.info(f"would write {path} ({state})")
    if missing:
        raise UserError(f"input {missing[0]} is not there" + name_maker(missing[0]))
    return True


def _begin(artifact: Artifact) -> None:
    """Take up a partial artifact that the same stamp began, or start a new one."""
    partial = _beside(artifact.path, "partial")
    if partial.exists() and artifact.path.exists():
        _refuse_difference(artifact.path, "begun", read_json(partial), artifact.stamp)
    _beside(artifact.path, "meta").unlink(missing_ok=True)
    write_json(partial, artifact.stamp)
    if artifact.path.suffix == ".jsonl" and artifact.path.exists():
        artifact.rows = _whole_rows(artifact.path)
        log.info(f"continuing {artifact.path} after row {len(artifact.rows)}")


def _whole_rows(path: Path) -> list[Row]:
    """The rows that end in a newline; what a kill left after the last of them is cut off."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return read_jsonl(path)


def _input_digests(inputs: Sequence[Path]) -> dict[str, str]:
    """Digest of each input by its name; raises UserError for one that is missing or unfinished."""
    found: dict[str, str] = {}
    for path in inputs:
        if not path.exists():
            raise UserError(f"input {path} is not there" + name_maker(path))
        if _unfinished(path) or _unfinished(path.parent):
            raise UserError(f"input {path} is unfinished: run the step that makes it again" + name_maker(path))
        name = path.name if path.name not in found else f"{path.parent.name}/{path.name}"
        found[name] = digest(path)
    return found


def _check_same(path: Path, meta: dict[str, Any], stamp: dict[str, Any]) -> None:
    _refuse_difference(path, "made", {key: meta.get(key) for key in stamp}, stamp)
    if path.is_file() and meta.get("digest") not in (None, digest(path)):
        advice = "to keep your edit start at the next stage (--from), to lose it give --overwrite"
        raise UserError(f"{path} was edited after it was made; {advice}")


def _refuse_difference(path: Path, how: str, then: dict[str, Any], now: dict[str, Any]) -> None:
    differences = find_differences(then, now)
    if differences:
        advice = "give the same settings, another --run, or --overwrite to make it again"
        raise MadeOtherwiseError(f"{path} was {how} otherwise: {'; '.join(differences)}. Either {advice}")


def _check_apart(path: Path, inputs: Sequence[Path]) -> None:
    """Refuse to make an artifact of what lies in it: that would be deleted before it is read."""
    for held in inputs:
        if held.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{path} would take the place of its own input {held}; name another --run")


def _remove(path: Path) -> None:
    # The marker goes first: a kill in between leaves an unfinished artifact, never a finished one that is not.
    _beside(path, "meta").unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    _beside(path, "partial").unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove the drafts that write_text left where its process was killed: `.NAME.PID.tmp`."""
    for folder in (path.parent, path):
        for draft in folder.glob(".*.tmp"):
            pid = draft.name.split(".")[-2]
            if pid.isdigit() and not _is_running(int(pid)):
                draft.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _unfinished(path: Path) -> bool:
    path = path.absolute()  # "." has no name
    return bool(path.name) and _beside(path, "partial").exists() and not _beside(path, "meta").exists()


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}.json")
