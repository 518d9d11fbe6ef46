"""One Python process behind a runner, which imports torch once and forks a process a stage.

scripts/bootstrap.sh starts it and asks for a stage by a count and that many words, each with a NUL behind it: the
script and its flags. When the stage is over its exit code comes back as a line. The server ends with the runner.

    python -m schema_student.operate.stage_server REQUESTS-FIFO ANSWERS-DESCRIPTOR [SCRIPT ...]

It forks the first stages as small as it is itself, so that what is finished says so at once. While one of them works,
it imports what later ones need (SCRIPT ... says which are to come). It never touches a GPU: where there is one nothing
is imported, as CUDA does not outlive a fork and Unsloth must be imported before transformers.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import select
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from schema_student.core.log import log, log_to_terminal
from schema_student.core.processes import end_with_parent, prepare_environment

AT_WORK = 1.5  # seconds after which a stage was not finished already
LOAD_A_STUDENT = {"train_student.py", "evaluate_student.py", "build_alignment_pairs.py", "train_alignment_dpo.py"}
IMPORTS = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.gemma3.modeling_gemma3",
    "transformers.trainer",
    "peft",
    "schema_student.student.generation",
    "schema_student.training.sft",
)


class StageServer:
    """Forks the stages that are asked for, one at a time, and answers with their exit codes."""

    def __init__(self, requests: IO[bytes], answers: IO[str], to_come: Sequence[str]) -> None:
        self.requests = requests
        self.answers = answers
        self.to_come = list(to_come)
        self.stage = 0
        self.interrupted = False

    def serve(self) -> list[str] | None:
        """Returns None when the runner has ended; in a process that is to be a stage, its words."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(signal.SIGCHLD, self._on_end)
        for words in _read_requests(self.requests):
            if Path(words[0]).name in self.to_come:
                self.to_come.remove(Path(words[0]).name)
            if self.interrupted:  # between two stages
                self._answer(128 + signal.SIGINT)
            elif not self._fork():
                return words
            elif not select.select([self.requests], [], [], AT_WORK)[0]:
                self._import_ahead()
        return None

    def _fork(self) -> bool:
        """Whether this is still the server."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # until we know whose end it tells
        self.stage = os.fork()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        return self.stage != 0

    def _import_ahead(self) -> None:
        if LOAD_A_STUDENT & {*self.to_come} and "torch" not in sys.modules and not shutil.which("nvidia-smi"):
            for module in IMPORTS:
                importlib.import_module(module)
            gc.collect()
            gc.freeze()  # else a stage's first collection copies the memory that it shares

    def _on_end(self, *_: Any) -> None:
        pid, status = os.waitpid(self.stage, os.WNOHANG) if self.stage else (0, 0)
        if pid:
            self.stage = 0
            code = os.waitstatus_to_exitcode(status)
            self._answer(128 - code if code < 0 else code)

    def _on_interrupt(self, *_: Any) -> None:
        self.interrupted = True

    def _answer(self, code: int) -> None:
        self.answers.write(f"{code}\n")
        self.answers.flush()


def _read_requests(requests: IO[bytes]) -> Iterator[list[str]]:
    while count := _read_word(requests):
        yield [_read_word(requests) for _ in range(int(count))]


def _read_word(requests: IO[bytes]) -> str:
    """Up to the next NUL; "" at the end."""
    letters = bytearray()
    while (letter := requests.read(1)) not in (b"", b"\0"):
        letters += letter
    return os.fsdecode(bytes(letters))


def _run_stage(words: Sequence[str], server: int) -> None:
    """Be the process of a stage: run its script as `python SCRIPT FLAG...` does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["SCHEMA_STUDENT_RUNNER"] = str(server)
    sys.argv = list(words)
    sys.path.insert(0, str(Path(words[0]).parent))
    try:
        runpy.run_path(words[0], run_name="__main__")
    except KeyboardInterrupt:  # while it imports
        log.error("interrupted; run the same command to continue")
        sys.exit(128 + signal.SIGINT)


def main() -> None:
    """Serve until the runner ends."""
    end_with_parent()
    prepare_environment()
    log_to_terminal()
    path, descriptor, *to_come = sys.argv[1:]
    server = os.getpid()
    with open(path, "rb", buffering=0) as requests, open(int(descriptor), "w") as answers:
        os.unlink(path)
        words = StageServer(requests, answers, to_come).serve()
    if words:
        _run_stage(words, server)


if __name__ == "__main__":
    main()
