"""Record a stage in the folder of its run, outputs/runs/RUN/, while it goes: for who watches it, and who mends it.

run.log        all messages, with time, level and process; the traceback of a failure with its variables
console.log    the messages as a terminal showed them
events.jsonl   a row an event: begun, progress (done, total, rate, seconds left, figures), done, failed, interrupted
status.json    the last state of each stage, from which `schema-student status` reads

    with recorded("sft", settings):
        train(...)

Logs are rotated, and hold no secret. What cannot be written there stops no stage: the artifacts are what counts.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schema_student.core.cleaning import for_terminal
from schema_student.core.errors import UNWRITABLE, UserError
from schema_student.core.files import make_folder, open_to_write, refuse_link
from schema_student.core.jsonl import dump_json, dump_row
from schema_student.core.log import log, log_event
from schema_student.core.names import resolve_run
from schema_student.core.paths import Paths, paths
from schema_student.core.processes import is_first_process, tell_in_one_line
from schema_student.core.settings import AnySettings, default_settings
from schema_student.operate.secrets import secret_hider
from schema_student.operate.tracebacks import describe_failure

LARGEST = 4 * 2**20  # bytes of a log, after which it is set aside
KEPT = 3  # logs that were set aside
STATUS_EVERY = 2.0  # seconds between two writes of status.json

Facts = dict[str, Any]


@contextmanager
def recorded(stage: str, settings: AnySettings) -> Iterator[None]:
    """Record what is done in this block as a stage of the settings' run.

    What nobody foresaw is told in one line and leaves the block with code 1; its traceback is in run.log.
    """
    where = paths(settings)
    recorder = _Recorder(where.run_folder, stage, _describe_stage(settings), secret_hider(_addresses(settings)))
    level = log.level
    log.addHandler(recorder)
    log.setLevel(logging.DEBUG)
    try:
        log_event("begun", f"begun: {stage}")
        with _told_failures(recorder):
            yield
        log_event("done", f"done: {stage}")
    finally:
        log.removeHandler(recorder)
        log.setLevel(level)
        with suppress(OSError):
            _link(where, where.run_folder)


@contextmanager
def _told_failures(recorder: _Recorder) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        log_event("interrupted", "interrupted")
        raise
    except UserError as error:
        recorder.show(f"error: {error}")  # as the program says when it ends
        log.debug("failed", exc_info=error)
        log_event("failed", "failed", error=str(error))
        raise
    except SystemExit as left:
        if left.code:
            why = recorder.last_error() or f"it ended with exit code {left.code}"
            log_event("failed", f"ended with exit code {left.code}", error=why)
        else:
            log_event("done", "done")
        raise
    except Exception as error:
        log_event("failed", "failed", error=f"{type(error).__name__}: {error}")
        if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno in UNWRITABLE):
            raise
        tell_in_one_line(error)
        raise SystemExit(1) from None


# ---------------------------------------------------------------------------------------------------------------------
# The handler that writes

RUN_LOG, CONSOLE, EVENTS, STATUS = "run.log", "console.log", "events.jsonl", "status.json"


class _Recorder(logging.Handler):
    """Writes the messages of one stage into the folder of its run."""

    def __init__(self, folder: Path, stage: str, facts: Facts, hide: Callable[[str], str]) -> None:
        super().__init__(logging.DEBUG)
        self.folder, self.stage, self.hide = folder, stage, hide
        self.state: Facts = {"state": "running", "pid": os.getpid(), "host": platform.node(), **_clean(facts, hide)}
        self.state |= {"process_started": process_started(os.getpid()), "started_at": _now()}
        self.written = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not is_first_process() and not error:
            return
        text = self.hide(for_terminal(record.getMessage()))
        if error:
            text += f"\n{describe_failure(error, self.hide)}"
        with suppress(OSError):  # a full disk: the stage itself says so where it matters
            make_folder(self.folder)
            head = f"{_now()} {record.levelname:<7} {self.stage} [{record.process}] "
            _append(self.folder / RUN_LOG, f"{head}{text}\n")
            if record.levelno >= logging.INFO:
                _append(self.folder / CONSOLE, f"{text}\n")
            if event := getattr(record, "event", ""):
                self._take_event(event, record.__dict__["facts"])

    def show(self, text: str) -> None:
        """Write what the terminal is shown and no message says."""
        with suppress(OSError):
            _append(self.folder / CONSOLE, f"{self.hide(for_terminal(text))}\n")

    def last_error(self) -> str:
        """Return the last error that the terminal was shown, where it was the last line: "" else."""
        with suppress(OSError):
            last = (self.folder / CONSOLE).read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]
            return last.removeprefix("error: ") if last.startswith("error: ") else ""
        return ""

    def _take_event(self, event: str, facts: Facts) -> None:
        told = _clean(facts, self.hide)
        _append(self.folder / EVENTS, dump_row({"at": _now(), "stage": self.stage, "event": event, **told}) + "\n")
        if event == "progress":
            self.state["progress"] = told
        elif event != "begun":
            self.state |= {"state": event, "ended_at": _now(), **told}
        if event != "progress" or time.monotonic() - self.written >= STATUS_EVERY:
            self.written = time.monotonic()
            self._write_status()

    def _write_status(self) -> None:
        """Write this stage's state beside those of the others.

        Two stages of a run at once may each lose the other's last progress, until they write again.
        """
        path = self.folder / STATUS
        status = {"run": self.folder.name, "stages": {**read_stages(path), self.stage: {**self.state, "at": _now()}}}
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with open_to_write(draft, "w", encoding="utf-8") as file:
            file.write(dump_json(status))
        draft.replace(path)


def read_stages(path: Path) -> dict[str, Facts]:
    """Read the last states of a run's stages by name; none where status.json is missing or no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["stages"]
        return {name: state for name, state in found.items() if isinstance(state, dict) and "state" in state}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def process_started(pid: int) -> str:
    """Return when a process was started, in the kernel's ticks; "" where that is not to be had, or it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _append(path: Path, text: str) -> None:
    if path.exists() and path.stat().st_size > LARGEST:
        for number in range(KEPT, 0, -1):
            older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number}"))
    with open_to_write(path, "a", encoding="utf-8", errors="replace") as file:
        file.write(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _clean(value: Any, hide: Callable[[str], str]) -> Any:
    """A value as JSON can hold it, what is no number as null; without secrets."""
    if isinstance(value, dict):
        return {key: _clean(item, hide) for key, item in value.items()}
    if isinstance(value, str):
        return hide(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------------------------------------------------------
# What a stage was started with, and where the rest of its run lies


def _describe_stage(settings: AnySettings) -> Facts:
    """The settings that differ from the defaults, without passwords; a runner's command, where one has started this."""
    usual = default_settings().flat()
    changed = {name: value for name, value in settings.flat().items() if value != usual[name]}
    return {"settings": changed, "runner": os.environ.get("SCHEMA_STUDENT_COMMAND", "")}


def _addresses(settings: AnySettings) -> list[str]:
    """Addresses that may hold passwords; read beside the stage, which has its own settings to read."""
    server, endpoint = settings.server.model_dump(), settings.endpoint.model_dump()
    return [*server["teacher_host"], endpoint["endpoint"]]


def _link(where: Paths, folder: Path) -> None:
    """Link what of a run lies elsewhere, and outputs/latest to this run; a link is only ever made anew."""
    refuse_link(folder)
    places = {"student": where.run_dir, "report": where.report_dir, "exports": where.exports, "dataset": where.dataset}
    for name, place in places.items():
        if place.exists():
            _make_link(folder / name, place)
    _make_link(where.logs.parent / "latest", folder)


def _make_link(link: Path, place: Path) -> None:
    target = os.path.relpath(place.absolute(), link.absolute().parent)
    if (link.exists() and not link.is_symlink()) or (link.is_symlink() and os.readlink(link) == target):
        return
    draft = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(link)


def run_of(settings: AnySettings) -> str:
    """Name the run of these settings; "" where they give it no name, which the stage says itself."""
    try:
        return resolve_run(settings)
    except UserError:
        return ""
