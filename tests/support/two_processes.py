"""Run a program as torchrun would with two processes, each a fork of one that has imported torch and this package."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Imported once by the process that is forked, which computes nothing: an import of all takes as long as a small run.
AHEAD = ["trl", "schema_student.training.alignment.stage", "schema_student.training.dpo.stage"]


def run_in_two_processes(*words: str) -> None:
    """Run `python WORDS` in two processes on this machine that know of each other; both must succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(AHEAD)
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, rank) for rank in "01"]
        processes = []
        for rank, log in zip("01", logs, strict=True):
            environment = {**os.environ, **place, "OMP_NUM_THREADS": "1", "RANK": rank, "LOCAL_RANK": rank}
            processes.append(context.Process(target=_be_program, args=(words, environment, log)))
            processes[-1].start()
        for process in processes:
            process.join(600)
        assert [process.exitcode for process in processes] == [0, 0], [log.read_text() for log in logs]


def _be_program(words: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
    """Be `python WORDS` in this process, which ends as a program does: what is registered for its end runs."""
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
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
