"""Make artifacts: say that one is done already, refuse it, or continue where a killed run left it.

Stages meet only at these files. A finished artifact has `<artifact>.meta.json` beside it, written last: the settings,
seed, versions, git commit and input digests that made it, and digests of what it is. A stage that is run again finds
its artifact finished and whole (and says so), made otherwise or by nobody knows what (and refuses), or partial (and
continues after the last whole row). With --overwrite the old one stands until the new one is whole.

    with open_artifact(paths(settings).corpus, make_stamp(settings, "prompt"), [paths(settings).dataset]) as artifact:
        if not artifact.done:
            for row in rows[len(artifact.rows):]:
                artifact.append(row)
            artifact.finish()
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, open_to_write, refuse_link, remove_drafts
from schema_student.core.integrity import find_damage, flush, restore, vouch
from schema_student.core.jsonl import Row, dump_row, maker, name_maker, read_jsonl, read_object, write_json
from schema_student.core.locks import hold_lock
from schema_student.core.log import log
from schema_student.core.replacing import complete_swap, discard_draft, draft_of
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import beside, digest, find_differences, git_commit, lifts_limit, limit_of, versions

OVERWRITTEN = "SCHEMA_STUDENT_OVERWRITTEN"  # environment: the file that lists what this --overwrite has made again

_checks_only: ContextVar[bool] = ContextVar("checks_only", default=False)


class MadeOtherwiseError(UserError):
    """An artifact that other settings or inputs made, or began."""


class Checked(Exception):
    """Raised in place of making an artifact, where only_check has found that it could be made."""


class Artifact:
    """One artifact being made.

    `path` is where it stands when it is finished, `work` where it is made: another place while an old one stands.
    `done`: it is there already, whole. `rows`: the whole rows of a partial JSONL artifact.
    """

    def __init__(self, path: Path, stamp: dict[str, Any]) -> None:
        self.path = path
        self.work = path
        self.stamp = stamp
        self.done = False
        self.rows: list[Row] = []
        self._companions: list[str] = []
        self._file: IO[Any] | None = None
        self._begun = time.monotonic()

    def append(self, row: Row) -> None:
        """Write one row; it survives a kill from here on."""
        line = dump_row(row) + "\n"
        if self._file is None:
            self._file = open_to_write(self.work, "a", encoding="utf-8", newline="\n")
        self._file.write(line)
        self._file.flush()

    def companion(self, path: Path) -> Path:
        """Locate where a file beside the artifact is written, to take its place together with it."""
        self._companions.append(path.name)
        return self.work.with_name(path.name)

    def finish(self, extra: dict[str, Any] | None = None, vouched: Sequence[str] = ("**/*",)) -> None:
        """Mark the artifact finished: write its .meta.json, the last thing a step does, and swap it in.

        The stamp vouches for a file, or for the files of a folder that match a pattern of `vouched`.
        """
        self.close()
        if self.path.suffix == ".jsonl":
            open_to_write(self.work, "a").close()
        assert self.work.exists(), f"{self.work} was finished but not written"
        facts: dict[str, Any] = {"versions": versions(), "git_commit": git_commit()}
        facts["finished_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        facts["seconds"] = round(time.monotonic() - self._begun, 1)  # of the process that finished it
        if self.work.is_file():
            flush(self.work)
            facts["digest"] = digest(self.work)
        else:
            facts["files"] = vouch(self.work, vouched)
        if self.work != self.path:
            facts["companions"] = self._companions
        write_json(beside(self.work, "meta"), {**self.stamp, **facts, **(extra or {})})
        complete_swap(self.path)
        beside(self.path, "partial").unlink(missing_ok=True)
        self.work = self.path
        _note_overwritten(self.path)

    def close(self) -> None:
        """Close the file of rows."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def open_artifact(
    path: Path, stamp: dict[str, Any], inputs: Sequence[Path] = (), overwrite: bool = False, derived: bool = False
) -> Iterator[Artifact]:
    """Hold an artifact's lock while it is made: a .jsonl file by rows, any other file or folder as a whole.

    What is missing of a folder that is `derived` quickly from its inputs is made again without a question. Raises
    UserError where another process holds it, an input is missing, damaged or lies in it, other settings made it,
    nothing says what made it, or it is no longer what was made and nothing can restore it.
    """
    refuse_link(path)
    _check_apart(path, inputs)
    stamp = json.loads(json.dumps({**stamp, "inputs": _input_digests(inputs)}))
    sources = [held.parent for held in inputs]
    if _checks_only.get():
        yield _check(path, stamp, sources, overwrite, derived)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path):
        complete_swap(path)
        _sweep(path)
        artifact = Artifact(path, stamp)
        _take_up(artifact, sources, overwrite, derived)
        try:
            yield artifact
        finally:
            artifact.close()
            if not artifact.done and not _is_there(artifact.work):  # nothing came of it: leave no trace
                beside(artifact.work, "partial").unlink(missing_ok=True)
                complete_swap(path)


def read_meta(path: Path) -> dict[str, Any] | None:
    """Read the .meta.json of an artifact; None where it is not finished."""
    meta = beside(path, "meta")
    kinds = {"settings": dict, "versions": dict, "inputs": dict, "files": dict, "rejected": dict, "teacher_info": dict}
    return read_object(meta, finished_at=str, digest=str, **kinds) if meta.exists() else None


def is_finished(path: Path) -> bool:
    """Return whether an artifact is there, finished, and as it was when it was finished."""
    meta = read_meta(path)
    return bool(meta and _is_there(path)) and not _damage(path, meta or {})


@contextmanager
def overwriting(record: Path) -> Iterator[None]:
    """Keep in a file what a command with --overwrite has made again, until it has made all.

    So the same command, run again after a stop, goes on with the rest. Within a runner the runner's file counts.
    """
    if OVERWRITTEN in os.environ:
        yield
        return
    os.environ[OVERWRITTEN] = str(record.absolute())
    try:
        yield
    finally:
        del os.environ[OVERWRITTEN]
    record.unlink(missing_ok=True)


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


def is_only_checking() -> bool:
    """Return whether this runs within only_check."""
    return _checks_only.get()


def _check(path: Path, stamp: dict[str, Any], sources: Sequence[Path], overwrite: bool, derived: bool) -> Artifact:
    """The finished artifact; raises Checked where it is to be made, UserError where it would be refused."""
    artifact, meta = Artifact(path, stamp), read_meta(path)
    if overwrite or not _is_there(path):
        raise Checked
    if not meta:
        _goes_on(path, stamp, overwrite)
        raise Checked
    if _lifts_limit(meta, stamp):
        raise Checked
    _refuse_difference(path, "made", _differences(meta, stamp))
    artifact.done = _is_whole(path, meta, sources, derived)
    if not artifact.done:
        raise Checked
    return artifact


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
        log.info(f"would write {path} ({_describe_state(path)})")
    if missing:
        raise UserError(f"input {missing[0]} is not there" + name_maker(missing[0]))
    return True


def _describe_state(path: Path) -> str:
    if not _is_there(path):
        return "absent"
    if read_meta(path):
        return "finished" if is_finished(path) else "finished, but no longer what was made"
    return "partial" if beside(path, "partial").exists() else "nothing says what made it"


# ---------------------------------------------------------------------------------------------------------------------
# What is there already


def _take_up(artifact: Artifact, sources: Sequence[Path], overwrite: bool, derived: bool) -> None:
    """Find out whether the artifact is done, goes on where it was, or is begun: in its place, or beside an old one."""
    path, stamp, meta = artifact.path, artifact.stamp, read_meta(artifact.path)
    again = overwrite and not (meta and _was_overwritten(path) and not _differences(meta, stamp))
    if meta and _is_there(path) and _lifts_limit(meta, stamp):
        again, most = True, limit_of(stamp) or "all"
        log.info(f"{path} was made of a part (--max-samples {limit_of(meta)}): it is made again of {most}")
    if meta and _is_there(path) and not again:
        _refuse_difference(path, "made", _differences(meta, stamp))
        artifact.done = _is_whole(path, meta, sources, derived)
        if artifact.done:
            _say_done(path, meta)
        else:
            _begin_beside(artifact)
    elif not _is_there(path) or (not meta and _goes_on(path, stamp, overwrite)):
        if meta:
            log.info(f"{path} was finished, and is gone: it is made again")
        _begin(artifact)
    else:
        _begin_beside(artifact)


def _is_there(path: Path) -> bool:
    """Whether anything is there that could be lost: a folder without a file holds nothing."""
    return any(file.is_file() for file in path.rglob("*")) if path.is_dir() else path.exists()


def _goes_on(path: Path, stamp: dict[str, Any], overwrite: bool) -> bool:
    """Whether this stamp began what is there unfinished; raises UserError for what must not be gone on with."""
    partial = beside(path, "partial")
    if not partial.exists():
        if path.is_file() and not path.stat().st_size:
            return True
        if not overwrite:
            advice = "move it away, put back what stood beside it, or give --overwrite to make it anew"
            raise UserError(f"{path} is there, but no {partial.name} or .meta.json says what made it; {advice}")
        return False
    begun = read_object(partial)
    differences = find_differences(begun, stamp)
    if not overwrite and not lifts_limit(begun, stamp):
        _refuse_difference(path, "begun", differences)
    return not differences


def _is_whole(path: Path, meta: dict[str, Any], sources: Sequence[Path], derived: bool) -> bool:
    """Whether a finished artifact is what was made, once what has a copy is restored; False: it is made again."""
    damage = _damage(path, meta)
    if damage and path.is_dir():
        damage = restore(path, meta["files"], damage, sources, only_check=_checks_only.get())
    if not damage:
        return True
    if path.is_file():
        advice = "to keep your edit start at the next stage (--from), to lose it give --overwrite"
        raise UserError(f"{path} was edited after it was made; {advice}")
    words = ", ".join(f"{name} {what}" for name, what in damage.items())
    if derived and {*damage.values()} == {"is missing"}:
        log.info(f"{path} is no longer what was made ({words}): it is made again")
        return False
    advice = "put it back, or give --overwrite to make it again; the old one stands until the new one is whole"
    raise UserError(f"{path} is no longer what was made: {words}, and there is no copy of it. Either {advice}")


def _damage(path: Path, meta: dict[str, Any]) -> dict[str, str]:
    if path.is_dir():
        return find_damage(path, meta.get("files", {}))
    return find_damage(path.parent, {path.name: meta["digest"]} if "digest" in meta else {})


def _say_done(path: Path, meta: dict[str, Any]) -> None:
    beside(path, "partial").unlink(missing_ok=True)
    log.info(f"done already: {path} (finished {meta.get('finished_at')})")
    if beside(draft_of(path), "partial").exists():
        log.info(f"  an --overwrite of it was stopped; it goes on with --overwrite ({draft_of(path)})")


def _begin_beside(artifact: Artifact) -> None:
    """Make the artifact anew beside what is there, or go on with that where the same stamp began it."""
    artifact.work = draft_of(artifact.path)
    make_folder(artifact.work.parent)
    partial = beside(artifact.work, "partial")
    if partial.exists() and not find_differences(read_object(partial), artifact.stamp):
        log.info(f"going on with what will replace {artifact.path}: {artifact.work}")
    else:
        discard_draft(artifact.path)
        log.info(f"{artifact.path} stands until what replaces it is whole: {artifact.work}")
    _sweep(artifact.work)
    _begin(artifact)


def _begin(artifact: Artifact) -> None:
    """Write the stamp that vouches for rows to come, and take up those that are there."""
    write_json(beside(artifact.work, "partial"), artifact.stamp)
    beside(artifact.work, "meta").unlink(missing_ok=True)
    if artifact.path.suffix == ".jsonl" and artifact.work.exists():
        artifact.rows = _whole_rows(artifact.work)
        log.info(f"continuing {artifact.work} after row {len(artifact.rows)}")


def _whole_rows(path: Path) -> list[Row]:
    """The rows that end in a newline; what a kill left after the last of them is cut off."""
    data = path.read_bytes()
    with open_to_write(path, "r+b") as file:
        file.truncate(data.rfind(b"\n") + 1)
    return read_jsonl(path)


def _was_overwritten(path: Path) -> bool:
    record = Path(os.environ.get(OVERWRITTEN) or os.devnull)
    return record.is_file() and str(path.absolute()) in record.read_text(encoding="utf-8").splitlines()


def _note_overwritten(path: Path) -> None:
    if record := os.environ.get(OVERWRITTEN):
        Path(record).parent.mkdir(parents=True, exist_ok=True)
        with open_to_write(Path(record), "a", encoding="utf-8") as file:
            file.write(f"{path.absolute()}\n")


# ---------------------------------------------------------------------------------------------------------------------
# Inputs, and what made them


def _input_digests(inputs: Sequence[Path]) -> dict[str, str]:
    """Digest of each input by its name; raises UserError for one that is missing, unfinished or damaged."""
    found: dict[str, str] = {}
    for path in inputs:
        if not path.exists():
            raise UserError(f"input {path} is not there" + name_maker(path))
        whole = path.absolute()  # "." has no name
        if any(_unfinished(each) for each in (whole, whole.parent) if each.name):
            raise UserError(f"input {path} is unfinished: run the step that makes it again" + name_maker(path))
        ends = ("/".join(whole.parts[-length:]) for length in range(1, len(whole.parts) + 1))
        name = next(end for end in ends if end not in found)
        found[name] = digest(path)
        _check_vouched(path, found[name])
    return found


def _check_vouched(path: Path, found: str) -> None:
    """Refuse a file of a finished folder that is not the one that was made: a run's adapter with a byte flipped."""
    for folder in path.absolute().parents:
        meta = read_meta(folder) if folder.name else None
        known = (meta or {}).get("files", {}).get(path.absolute().relative_to(folder).as_posix())
        if known not in (None, found):
            advice = f"run the step that makes {folder.name}: it restores what has a copy{name_maker(path.parent)}"
            raise UserError(f"input {path} is not what was made, it has changed since; {advice}")


def _differences(meta: dict[str, Any], stamp: dict[str, Any]) -> list[str]:
    return find_differences({key: meta.get(key) for key in stamp}, stamp)


def _lifts_limit(meta: dict[str, Any], stamp: dict[str, Any]) -> bool:
    """Whether a finished artifact was made of a part (--max-samples), to try its stage, and now more is asked for."""
    return lifts_limit({key: meta.get(key) for key in stamp}, stamp)


def _refuse_difference(path: Path, how: str, differences: Sequence[str]) -> None:
    if differences:
        advice = "give the same settings, another --run, or --overwrite to make it again"
        raise MadeOtherwiseError(f"{path} was {how} otherwise: {'; '.join(differences)}. Either {advice}")


def _check_apart(path: Path, inputs: Sequence[Path]) -> None:
    """Refuse to make an artifact of what lies in it: that would be gone when it is read again."""
    for held in inputs:
        if held.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{path} would take the place of its own input {held}; name another --run")


def _unfinished(path: Path) -> bool:
    """Whether an artifact is being made, or its replacement was stopped while it was swapped in."""
    begun = beside(path, "partial").exists() and not beside(path, "meta").exists()
    return begun or beside(draft_of(path), "meta").exists()


def _sweep(path: Path) -> None:
    """Remove the drafts of files beside an artifact and in it."""
    for folder in (path.parent, path):
        remove_drafts(folder)
