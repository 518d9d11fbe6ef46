"""Train in several processes on a CPU, as under torchrun, but started by the script itself.

The matrices of a small student are too small for two threads: one process a core is nearly twice as fast as one process
on two cores. A script calls `share_cores` first of all; the first process is the script, the others are the same
command again. They write nothing, end with the first, and end it if they fail.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.settings import AnySettings, ResolvedSettings, resolve_auto
from schema_student.student.choice import choose_student, has_cuda

PATIENCE = 20  # seconds in which a process notices by itself that another one is gone
idle = False  # there is nothing to train: the other processes were not started


@contextmanager
def share_cores(settings: AnySettings, run_dir: Path, accumulation: str, batch_size: str) -> Iterator[ResolvedSettings]:
    """Run settings.student.processes, no more than there are cores; yields the settings of one of them.

    Each takes its share of every step: fewer micro-batches (`accumulation` names the setting), else smaller ones
    (`batch_size`), so that the step is the same. On a GPU, under torchrun, or where neither can be divided, the script
    stays one process. Call it before torch is imported, which counts its threads then. Raises UserError with the last
    words of a process that fails.
    """
    global idle
    resolved = resolve_auto(settings, choose_student(settings).kind)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(int(resolved.student.processes), cores)
    shared = next((name for name in (accumulation, batch_size) if resolved.value(name) % count == 0), "")
    if count == 1 or not shared or has_cuda() or "WORLD_SIZE" in os.environ:
        yield resolved
        return
    share = resolved.value(shared) // count
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place |= {"RANK": 0, "LOCAL_RANK": 0, "OMP_NUM_THREADS": cores // count}
    before = {name: os.environ.get(name) for name in place}
    os.environ.update({name: str(value) for name, value in place.items()})
    idle = read_meta(run_dir) is not None and not resolved.run.overwrite
    if not idle:
        log.info(f"  {count} processes, one a core: each takes {shared} {share} of {resolved.value(shared)}")
        os.environ["SCHEMA_STUDENT_HELPERS"] = str(count - 1)  # whose memory core.processes.run_script adds
    program = ["-m", "schema_student"] if Path(sys.argv[0]).name == "__main__.py" else sys.argv[:1]
    command = [sys.executable, *program, *sys.argv[1:], f"--{shared.replace('_', '-')}", str(share)]
    try:
        with _run_beside([] if idle else [command] * (count - 1)):
            yield resolved.changed(**{shared: share})
    finally:
        idle = False
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _run_beside(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Run the commands as the processes after this one, until all are done or this one fails."""
    over, started = threading.Event(), []
    with ExitStack() as stack:
        for rank, command in enumerate(commands, start=1):
            words = stack.enter_context(tempfile.TemporaryFile("w+"))
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "SCHEMA_STUDENT_RUNNER": str(os.getpid())}
            helper = subprocess.Popen(command, env={**os.environ, **place}, stdout=subprocess.DEVNULL, stderr=words)
            stack.callback(helper.wait)
            stack.callback(helper.kill)
            stack.callback(over.set)
            threading.Thread(target=_watch, args=(helper, words, over), daemon=True).start()
            started.append((helper, words))
        try:
            yield
        except RuntimeError as error:  # so says torch where another process is gone
            for helper, words in started:
                try:
                    failed = helper.wait(PATIENCE / 2) != 0
                except subprocess.TimeoutExpired:
                    continue
                if failed:
                    raise UserError(_last_words(helper, words)) from error
            raise
        for helper, _ in started:
            helper.wait()


def _watch(helper: subprocess.Popen[bytes], words: IO[str], over: threading.Event) -> None:
    """End this process where a helper failed and it does not notice: it may be waiting for it for half an hour."""
    if helper.wait() != 0 and not over.wait(PATIENCE):
        log.error(f"error: {_last_words(helper, words)}")
        os._exit(1)


def _last_words(helper: subprocess.Popen[bytes], words: IO[str]) -> str:
    words.seek(0)
    lines = [line.strip() for line in words if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else f"it said nothing (exit code {helper.returncode})"
    return f"in another process of this run: {said}"
