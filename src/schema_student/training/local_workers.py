"""Train in several processes on a CPU, as under torchrun, but started by the stage itself.

The matrices of a small student are too small for two threads: one process a core is nearly twice as fast as one process
on two cores. The first process is the stage's own; the others are forks of it, made when it has imported torch and
computed nothing. They write nothing, end with the first, and end it if they fail.

    train_in_workers(train_sft, settings, run_dir, "gradient_accumulation", "sft_batch_size")
    run_apart(train_all, settings)      # several of them one after another, each in a process that has computed nothing
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from schema_student.core.artifacts import is_finished, is_only_checking
from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.processes import (
    count_cores,
    end_with_parent,
    exit_code_of,
    pass_on,
    process_count,
    run_script,
)
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.student.choice import has_cuda, resolve_student

Train = Callable[[ResolvedSettings], None]
S = TypeVar("S")

PATIENCE = 20  # seconds in which a process notices by itself that another one is gone
IMPORTS = (  # what a process that loads a student needs, as far as it takes long
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.gemma3.modeling_gemma3",
    "accelerate",
    "peft",
    "schema_student.student.generation",
    "schema_student.training.loop",
)
IMPORTED_AHEAD = "SCHEMA_STUDENT_IMPORTED_AHEAD"
SHARED = "SCHEMA_STUDENT_SHARED"  # environment: the setting that processes divide among them; unset under torchrun
MEETING_FILE = "SCHEMA_STUDENT_MEETING_FILE"  # names the file by which the processes of a stage find each other
idle = False  # there is nothing to train, or only to check: the other processes were not started


def import_ahead() -> None:
    """Import what training needs, before this process is forked; nothing is computed, which forks do not outlive."""
    for module in IMPORTS:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else the first collection of a fork copies the memory that it shares
    os.environ[IMPORTED_AHEAD] = str(os.getpid())


def train_in_workers(train: Train, settings: AnySettings, run_dir: Path, accumulation: str, batch_size: str) -> None:
    """Have settings.student.processes train, no more than there are cores; `share_step` says what is each one's share.

    A share has fewer micro-batches of every step (`accumulation` names the setting), else smaller ones (`batch_size`),
    so that the step is the same. On a GPU, under torchrun, or where neither can be divided, the stage stays one
    process. `train` is a function of a module. Raises UserError with the last words of a process that fails.
    """
    global idle
    _, resolved = resolve_student(settings)
    cores = count_cores()
    count = 1 if resolved.optimizer.trainer == "trl" else min(int(resolved.student.processes), cores)
    shared = next((name for name in (accumulation, batch_size) if resolved.value(name) % count == 0), "")
    if count == 1 or not shared or has_cuda() or "WORLD_SIZE" in os.environ:
        train(resolved)
        return
    place = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "RANK": 0, "LOCAL_RANK": 0, SHARED: shared}
    place["OMP_NUM_THREADS"] = cores // count
    idle = is_only_checking() or (is_finished(run_dir) and not resolved.run.overwrite)
    if not idle:
        whole = resolved.value(shared)
        log.info(f"  {count} processes, one a core: each takes {shared} {whole // count} of {whole}")
        place["SCHEMA_STUDENT_HELPERS"] = count - 1  # whose memory run_script adds
    try:
        with _environment(place), start_workers(train, resolved, 1 if idle else count):
            train(resolved)
    finally:
        idle = False


def run_apart(stage: Callable[[S], None], settings: S) -> None:
    """Run a stage in a process of its own, so that this one computes nothing, and the next stage may fork again.

    `stage` is a function of a module. Leaves with the exit code of a stage that fails, which has said why. Under
    torchrun, whose processes stay, it runs here.
    """
    if "WORLD_SIZE" in os.environ:
        stage(settings)
        return
    if sys.platform == "linux" and not has_cuda() and IMPORTED_AHEAD not in os.environ:
        import_ahead()  # once for all stages
    process = choose_start().Process(target=_be_stage, args=(stage, settings, "SCHEMA_STUDENT_RUNNER" in os.environ))
    process.start()
    try:
        process.join()
    except KeyboardInterrupt as interrupt:
        pass_on(interrupt, process.pid or 0)
        process.join()
        if (process.exitcode or 0) <= 0:  # it did not hear it, or could not speak any more
            raise
        raise SystemExit(exit_code_of(interrupt)) from None  # it has said so
    code = process.exitcode or 0
    if code < 0:
        raise UserError(f"signal {-code} ended the stage; run the same command to continue")
    if code:
        raise SystemExit(code)


def _be_stage(stage: Callable[[S], None], settings: S, under_runner: bool) -> None:
    """Be the process of a stage: it ends with the one that began it."""
    os.environ["SCHEMA_STUDENT_RUNNER"] = str(os.getppid())
    end_with_parent()
    if not under_runner:
        del os.environ["SCHEMA_STUDENT_RUNNER"]
    run_script(lambda: stage(settings))


def share_step(settings: ResolvedSettings) -> ResolvedSettings:
    """Return the settings with this process's share of each optimizer step; all of it where the run is one process."""
    name = os.environ.get(SHARED, "")
    return settings.changed(**{name: settings.value(name) // process_count()}) if name else settings


def launched_count() -> int:
    """Count torchrun's processes, each of which takes whole batches of a step; local workers share those of one."""
    return 1 if SHARED in os.environ else process_count()


def loopback_interface() -> str:
    """Find the name of the loopback interface, on which nobody outside this machine is heard: lo, or lo0 on a Mac."""
    names = [name for _, name in socket.if_nameindex()]
    return "lo0" if "lo0" in names else "lo"


@contextmanager
def _environment(values: Mapping[str, object]) -> Iterator[None]:
    """Set variables for a while, but for the count of processes, whose memory is said at the end."""
    before = {name: os.environ.get(name) for name in values if name != "SCHEMA_STUDENT_HELPERS"}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


# ---------------------------------------------------------------------------------------------------------------------
# The other processes


@dataclass
class _Worker:
    """Hold one of the other processes, and the file of what it says."""

    process: BaseProcess
    words: Path
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, seconds: float | None = None) -> int | None:
        """Return its exit code; None where it still runs after so long."""
        if not connection.wait([self.process.sentinel], seconds):
            return None
        with self.lock:  # two threads wait
            self.process.join()  # its end of the pipe is closed a moment before its exit code is there
            return self.process.exitcode

    def last_words(self) -> str:
        lines = [line.strip() for line in self.words.read_text().splitlines() if line.strip()]
        nothing = f"it said nothing (exit code {self.process.exitcode})"
        return f"in another process of this run: {lines[-1].removeprefix('error: ') if lines else nothing}"


@contextmanager
def start_workers(train: Train, settings: ResolvedSettings, count: int) -> Iterator[None]:
    """Run the processes after this one, until all are done or this one fails; this one has its share of threads."""
    if count == 1:
        yield
        return
    start = choose_start()
    if isinstance(start, ForkContext) and IMPORTED_AHEAD not in os.environ:
        import_ahead()
    over = threading.Event()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # nobody else may enter it
        place = {MEETING_FILE: folder / "meeting", "GLOO_SOCKET_IFNAME": loopback_interface()}
        stack.enter_context(_environment(place))
        stack.callback(leave_processes)
        workers: list[_Worker] = []
        for rank in range(1, count):
            words = folder / str(rank)
            words.touch()
            process = start.Process(target=_work, args=(train, settings, rank, words))
            process.start()
            workers.append(_Worker(process, words))
            stack.callback(workers[-1].wait)
            stack.callback(process.kill)
        stack.callback(over.set)
        for worker in workers:
            threading.Thread(target=_watch, args=(worker, over), daemon=True).start()
        _limit_threads()
        try:
            yield
        except RuntimeError as error:  # so says torch where another process is gone
            _blame(workers, error)
            raise
        for worker in workers:
            worker.wait()


def leave_processes() -> None:
    """End this process's part in the group: a next stage begins its own, and its threads do not outlive it."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def choose_start() -> ForkContext | SpawnContext:
    """Choose fork where this process has computed nothing and the system is Linux; elsewhere a new interpreter."""
    fresh = "torch" not in sys.modules or IMPORTED_AHEAD in os.environ
    may_fork = sys.platform == "linux" and fresh
    return multiprocessing.get_context("fork") if may_fork else multiprocessing.get_context("spawn")


def _work(train: Train, settings: ResolvedSettings, rank: int, words: Path) -> None:
    """Be the process of this rank: silent, but for its last words."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "SCHEMA_STUDENT_RUNNER": str(os.getppid())}
    for stream, path in ((1, os.devnull), (2, words)):
        file = open(path, "w", buffering=1)  # noqa: SIM115
        os.dup2(file.fileno(), stream)
        setattr(sys, "stdout" if stream == 1 else "stderr", file)
    _limit_threads()
    run_script(lambda: train(settings))


def _limit_threads() -> None:
    """Give this process its threads: a fork has not read OMP_NUM_THREADS."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _blame(workers: Sequence[_Worker], error: RuntimeError) -> None:
    """Raise UserError with the last words of a process that has failed, if one has."""
    for worker in workers:
        if worker.wait(PATIENCE / 2):
            raise UserError(worker.last_words()) from error


def _watch(worker: _Worker, over: threading.Event) -> None:
    """End this process where another one failed and it does not notice: it may be waiting for it for half an hour."""
    if worker.wait() != 0 and not over.wait(PATIENCE):
        log.error(f"error: {worker.last_words()}")
        os._exit(1)
