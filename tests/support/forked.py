"""Programs in processes of their own, each a fork of one that has imported torch and this package.

An interpreter that imports all of that anew takes longer than most runs of a tiny student.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest.mock import patch

from pipeline import ROOT, Ended

from schema_student.training.local_workers import IMPORTED_AHEAD


@cache
def fork_server() -> ForkServerContext:
    """Start the process that is forked; it computes nothing, and finds modules by PYTHONPATH alone."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ahead"])
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join((os.environ["PYTHONPATH"], str(Path(__file__).parent)))):
        forkserver.ensure_running()
    return context


class Program:
    """`python WORDS`, begun in the checkout's folder; variables of the environment that are None are not set."""

    def __init__(self, *words: object, **changes: str | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.streams = [Path(self.folder.name, name) for name in ("out", "err")]
        environment = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
        self.process = fork_server().Process(target=_be_program, args=([*map(str, words)], environment, self.streams))
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_ended(self) -> bool:
        return self.process.exitcode is not None

    def strike(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, seconds: float = 600) -> Ended:
        """Wait for its end; returns the exit code, minus the signal that killed it, and its words."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it does not end"
        with self.folder:
            return Ended(self.process.exitcode, *(stream.read_text() for stream in self.streams))


def run_program(*words: object, **changes: str | None) -> Ended:
    """Run `python WORDS` to its end."""
    return Program(*words, **changes).end()


def _be_program(words: list[str], environment: dict[str, str], streams: list[Path]) -> None:
    """Be `python WORDS` in this process, which ends as a program does: what is registered for its end runs."""
    assert "ahead" in sys.modules, "the process that is forked could not import it"
    for number, path in enumerate(streams, 1):
        with path.open("w") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update({**environment, IMPORTED_AHEAD: str(os.getpid())})
    os.chdir(ROOT)
    try:
        if words[0] == "-m":
            sys.argv = [*words[1:]]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(words[1], {"__name__": "__main__"})
        else:
            sys.argv = [*words]
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
