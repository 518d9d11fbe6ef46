"""Start and end a program: its environment, its exit code, its words on failure, its place among several processes."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from schema_student.core.cleaning import one_line
from schema_student.core.errors import UNWRITABLE, UserError
from schema_student.core.log import log, log_to_terminal

INTERRUPTED = "interrupted; run the same command to continue"

ENDING = (signal.SIGINT, signal.SIGTERM)  # what a terminal, and what a scheduler or a container's host, ends it with


class Interrupted(KeyboardInterrupt):
    """Raised where a signal ends this process: 130 for SIGINT, as any KeyboardInterrupt, 143 for SIGTERM."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number


# What a failure comes of, in the words of who knows the settings; "" where it is another. Forks take it over.
explain_failure: ContextVar[Callable[[Exception], str]] = ContextVar("explain_failure", default=lambda error: "")

# What a program sets in its environment where it is not set, before torch and the libraries of the hub are loaded.
ENVIRONMENT = {
    # libgomp's threads spin where they wait, and two processes on two cores hardly move: a step of 0.7 s took 8 s.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    # On a CPU oneDNN keeps what it has compiled for the last 1,024 shapes of matrices, and PyTorch as many again. No
    # two batches of trees have the same shape, so that these grew to 1.3 GiB; as few as this cost no time.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    # Nothing is reported to anyone.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
}


def prepare_environment() -> None:
    """Set the environment variables that libraries read when they are loaded; those that are set already stay."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():  # a bar would be a line for each of its states
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def reuse_freed_memory() -> None:
    """Have glibc keep what this process frees, and take its next arrays from there.

    By default each array above some MiB is mapped anew: the kernel clears its pages at every operation of a large
    batch, which is a quarter of the computation of Gemma's layers on a CPU, for a tenth less memory at its peak.
    """
    mmap_max, trim_threshold, most = -4, -1, 2**31 - 1
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:  # musl has none
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, most)


def watch_interrupts() -> None:
    """Let Ctrl-C and SIGTERM end this process with one line and 130 or 143, also while a module is imported.

    An exception there is a traceback of hundreds of lines, or an abort: torch's C++ knows no KeyboardInterrupt.
    """
    for number in ENDING:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _on_interrupt)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, f"{INTERRUPTED}\n".encode())
            os._exit(128 + number)
        frame = frame.f_back
    raise Interrupted(number)


@dataclass
class Delayed:
    """Which signal has asked this process to end, in a block of `delay_interrupts`; 0 where none has."""

    number: int = 0


@contextmanager
def delay_interrupts(advice: str) -> Iterator[Delayed]:
    """Take note of the first SIGINT or SIGTERM in this block, and say `advice`; a SIGINT after it ends all at once.

    What is ignored stays so, as does all where this is not the main thread, which alone may handle signals.
    """
    delayed = Delayed()

    def take_note(number: int, _: FrameType | None) -> None:
        if delayed.number and number == signal.SIGINT:  # SIGTERM may come twice: to a group, and passed on in it
            raise Interrupted(number)
        delayed.number = number
        if is_first_process():
            os.write(2, f"{advice}\n".encode())  # a logger may hold its lock just now

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in ENDING if main}
    for number in [number for number, handler in before.items() if handler is not signal.SIG_IGN]:
        signal.signal(number, take_note)
    try:
        yield delayed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Have Linux end this process when its runner is killed: an orphan would hold the artifact's lock."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux" and os.environ.get("SCHEMA_STUDENT_RUNNER") == str(os.getppid()):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main and leave with its exit code: 0 done, 1 failed, 2 wrong usage, 130 or 143 interrupted.

    Under a runner a script that is done says its peak memory, as the runner says its seconds.
    """
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    prepare_environment()
    reuse_freed_memory()
    log_to_terminal()
    end_with_parent()
    if threading.current_thread() is threading.main_thread():
        watch_interrupts()
    try:
        main()
    except UserError as error:
        log.error(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt as interrupt:
        log.error(INTERRUPTED)
        sys.exit(exit_code_of(interrupt))
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if words := explain_failure.get()(error):
            log.error(f"error: {words}")
            sys.exit(1)
        if error.errno not in UNWRITABLE:
            tell_in_one_line(error)
            sys.exit(1)
        place = f"{error.filename}: " if error.filename else ""
        log.error(f"error: {place}{error.strerror}; mend that, then run the same command to continue")
        sys.exit(1)
    except Exception as error:
        if words := explain_failure.get()(error):
            log.error(f"error: {words}")
        else:
            tell_in_one_line(error)
        sys.exit(1)
    if "SCHEMA_STUDENT_RUNNER" in os.environ:
        unit = 2**30 if sys.platform == "darwin" else 2**20  # ru_maxrss is in bytes there, else in KiB
        own, helper = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        helpers = int(
            os.environ.get("SCHEMA_STUDENT_HELPERS", "0")
        )  # of local_workers; what they share counts for each
        log.info(f"  peak memory {(own + helpers * helper) / unit:.1f} GiB")
    sys.exit(0)


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a process that a signal interrupts, as a shell says it."""
    return 128 + (interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT)


def pass_on(interrupt: KeyboardInterrupt, pid: int) -> None:
    """Send the process of a stage the SIGTERM that this one was sent; Ctrl-C the terminal has sent it already."""
    if exit_code_of(interrupt) == 128 + signal.SIGTERM:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def tell_in_one_line(error: Exception) -> None:
    """Say in one line what nobody foresaw, where the log of a run takes its traceback; else raise it."""
    if not log.isEnabledFor(logging.DEBUG):
        raise error
    log.debug("failed", exc_info=error)
    log.error(f"error: {one_line(f'{type(error).__name__}: {error}')}; run.log in the run's folder has the traceback")


def is_first_process() -> bool:
    """Return whether this process writes the run's files: the only one, or the first of several (torchrun)."""
    return process_index() == 0


def process_index() -> int:
    """Return the number of this process among those of the run (torchrun), from 0."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Count the processes of the run (torchrun): they share each optimizer step."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_running(pid: int, mine: bool = False) -> bool:
    """Return whether there is a process of this number; with `mine` one that this user may signal."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not mine
    except (ProcessLookupError, OverflowError, TypeError):
        return False
    return pid > 0


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
