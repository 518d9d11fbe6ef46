"""Serve a runner's stages: fork a process a stage, the later ones from a process that has imported torch once.

scripts/bootstrap.sh starts it and asks for a stage by a count and that many words, each with a NUL behind it: the
script and its flags. When the stage is over its exit code comes back as a line. The server ends with the runner.

    python -m schema_student.operate.stage_server REQUESTS-FIFO ANSWERS-DESCRIPTOR [SCRIPT ...]

The server itself stays as small as it starts, so that a stage that is finished says so at once. As soon as one is at
work and stages that load a student are to come (SCRIPT ... says which), a second server imports what these need and
forks them. No GPU is touched: where there is one nothing is imported ahead, as CUDA does not outlive a fork and Unsloth
must be imported before transformers.
"""

from __future__ import annotations

import os
import runpy
import select
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from schema_student.core.log import log, log_to_terminal
from schema_student.core.processes import (
    INTERRUPTED,
    end_with_parent,
    exit_code_of,
    prepare_environment,
    watch_interrupts,
)
from schema_student.training.local_workers import import_ahead

AT_WORK = 1.5  # seconds after which a stage was not finished already
LOAD_A_STUDENT = {"train_student.py", "evaluate_student.py", "align_student.py"}


@dataclass
class ImportedServer:
    """The second server, which has imported torch: the descriptor of its requests, whether it works on the last one."""

    pid: int
    requests: int
    is_asked: bool = False


class StageServer:
    """Forks the stages that are asked for, one at a time, and answers with their exit codes."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes], to_come: Sequence[str] = ()) -> None:
        self.requests = requests
        self.answers = answers
        self.to_come = list(to_come)
        self.stage = 0
        self.imported: ImportedServer | None = None
        self.interrupted = 0  # the signal that has asked the runner to end

    def serve(self) -> list[str] | None:
        """Serve until the runner ends, and return None; in a process that is to be a stage, return its words."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGCHLD, self._on_end)
        for words in _read_requests(self.requests):
            script = Path(words[0]).name
            if script in self.to_come:
                self.to_come.remove(script)
            if self.imported:
                self.imported.is_asked = script in LOAD_A_STUDENT
            if self.interrupted:  # between two stages
                self._answer(128 + self.interrupted)
            elif self.imported and self.imported.is_asked:
                _write_request(self.imported.requests, words)
            elif not self._fork_stage():
                return words
            elif self._should_import() and not select.select([self.requests], [], [], AT_WORK)[0]:
                taken = self._start_imported()
                if taken is not None:
                    return taken or None
        if self.imported:
            os.kill(self.imported.pid, signal.SIGKILL)
        return None

    def _fork_stage(self) -> bool:
        """Whether this is still the server."""
        self.stage = _fork()
        return self.stage != 0

    def _should_import(self) -> bool:
        return not self.imported and not shutil.which("nvidia-smi") and bool(LOAD_A_STUDENT & {*self.to_come})

    def _start_imported(self) -> list[str] | None:
        """None in this server; in the second one and its stages what its serve returned, [] for its end."""
        reading, writing = os.pipe()
        pid = _fork()
        if pid:
            os.close(reading)
            self.imported = ImportedServer(pid, writing)
            return None
        os.close(writing)
        self.requests.close()
        self.stage = 0
        import_ahead()
        with open(reading, "rb", buffering=0) as requests:
            return StageServer(requests, self.answers).serve() or []

    def _on_end(self, *_: Any) -> None:
        if self.stage and (code := _exit_code(self.stage)) is not None:
            self.stage = 0
            self._answer(code)
        if self.imported and (code := _exit_code(self.imported.pid)) is not None:
            if self.imported.is_asked:  # its stage has ended with it
                self._answer(code or 1)
            self.imported = None

    def _on_interrupt(self, *_: Any) -> None:
        self.interrupted = signal.SIGINT

    def _on_terminate(self, *_: Any) -> None:
        """Pass on what the runner was sent: to the stage, or to the second server, which does likewise."""
        self.interrupted = signal.SIGTERM
        asked = self.imported.pid if self.imported and self.imported.is_asked else 0
        if at_work := self.stage or asked:
            with suppress(ProcessLookupError):
                os.kill(at_work, signal.SIGTERM)

    def _answer(self, code: int) -> None:
        self.answers.write(b"%d\n" % code)


def _fork() -> int:
    """os.fork, whose child knows its server as its runner, and ends with it."""
    server = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # until the server knows whose end it tells
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ["SCHEMA_STUDENT_RUNNER"] = str(server)
        end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return pid


def _exit_code(child: int) -> int | None:
    """As a shell says it; None while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status)
    return (128 - code if code < 0 else code) if pid else None


def _read_requests(requests: IO[bytes]) -> Iterator[list[str]]:
    while count := _read_word(requests):
        yield [_read_word(requests) for _ in range(int(count))]


def _read_word(requests: IO[bytes]) -> str:
    """Up to the next NUL; "" at the end."""
    letters = bytearray()
    while (letter := requests.read(1)) not in (b"", b"\0"):
        letters += letter
    return os.fsdecode(bytes(letters))


def _write_request(requests: int, words: Sequence[str]) -> None:
    os.write(requests, b"".join(os.fsencode(word) + b"\0" for word in [str(len(words)), *words]))


def _run_stage(words: Sequence[str]) -> None:
    """Be the process of a stage: run its script as `python SCRIPT FLAG...` does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watch_interrupts()
    sys.argv = list(words)
    sys.path.insert(0, str(Path(words[0]).parent))
    try:
        runpy.run_path(words[0], run_name="__main__")
    except KeyboardInterrupt as interrupt:  # while it imports
        log.error(INTERRUPTED)
        sys.exit(exit_code_of(interrupt))


def main() -> None:
    """Serve until the runner ends."""
    end_with_parent()
    prepare_environment()
    log_to_terminal()
    path, descriptor, *to_come = sys.argv[1:]
    with open(path, "rb", buffering=0) as requests, open(int(descriptor), "wb", buffering=0) as answers:
        os.unlink(path)
        words = StageServer(requests, answers, to_come).serve()
    if words:
        _run_stage(words)


if __name__ == "__main__":
    main()
