"""Tests for core.processes: what a program sets for itself before it computes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from schema_student.core import processes
from schema_student.core.processes import (
    Interrupted,
    count_cores,
    delay_interrupts,
    end_with_parent,
    exit_code_of,
    is_first_process,
    is_running,
    pass_on,
    prepare_environment,
    process_count,
    process_index,
    reuse_freed_memory,
    run_script,
    watch_interrupts,
)


class Library:
    """A C library that writes down how its functions are called."""

    def __init__(self, *names):
        self.calls = []
        for name in names:
            setattr(self, name, lambda *given: self.calls.append(given))


@pytest.fixture
def handlers(monkeypatch):
    """Handlers of signals as a program begins with them, put back after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_is_freed_is_kept_by_glibc_alone(monkeypatch):
    for system, functions, calls in (
        ("linux", ["mallopt"], [(-4, 0), (-1, 2**31 - 1)]),
        ("linux", [], []),
        ("darwin", ["mallopt"], []),
    ):
        library = Library(*functions)
        monkeypatch.setattr(processes.ctypes, "CDLL", {None: library}.__getitem__)
        monkeypatch.setattr(sys, "platform", system)
        reuse_freed_memory()
        assert library.calls == calls


def test_a_program_ends_with_its_runner_where_that_is_its_parent(monkeypatch):
    for system, runner, calls in (
        ("linux", os.getppid(), [(1, signal.SIGKILL)]),
        ("linux", os.getpid(), []),
        ("darwin", os.getppid(), []),
    ):
        library = Library("prctl")
        monkeypatch.setattr(processes.ctypes, "CDLL", {None: library}.__getitem__)
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setenv("SCHEMA_STUDENT_RUNNER", str(runner))
        end_with_parent()
        assert library.calls == calls


def test_a_signal_is_watched_where_nobody_handles_it(handlers):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watch_interrupts()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    with pytest.raises(Interrupted) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.value.number == signal.SIGINT and exit_code_of(caught.value) == 130
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    watch_interrupts()
    with pytest.raises(Interrupted) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert exit_code_of(caught.value) == 143 and exit_code_of(KeyboardInterrupt()) == exit_code_of(Interrupted()) == 130


def test_the_first_signal_is_noted_and_a_second_ctrl_c_ends(handlers, capfd, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with delay_interrupts("once more to end") as delayed:
        assert delayed.number == 0
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert delayed.number == signal.SIGTERM
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == "once more to end\n" * 2
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    monkeypatch.setenv("RANK", "1")
    with delay_interrupts("once more to end") as delayed:
        signal.raise_signal(signal.SIGTERM)
        assert delayed.number == 0
        signal.raise_signal(signal.SIGINT)
        assert delayed.number == signal.SIGINT
    assert capfd.readouterr().err == ""


def test_another_thread_handles_no_signals(handlers):
    def work(noted):
        with delay_interrupts("x") as delayed:
            noted.append((delayed.number, signal.getsignal(signal.SIGINT)))

    noted = []
    thread = threading.Thread(target=work, args=(noted,))
    thread.start()
    thread.join()
    assert noted == [(0, signal.default_int_handler)]


def test_a_stage_is_sent_the_sigterm_that_its_runner_was_sent(monkeypatch):
    sent = []

    def kill(pid, number):
        sent.append((pid, number))
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    pass_on(Interrupted(signal.SIGTERM), 7)
    pass_on(Interrupted(signal.SIGINT), 7)
    pass_on(KeyboardInterrupt(), 7)
    assert sent == [(7, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("system", "helpers", "said"),
    [("linux", None, 1.5), ("linux", "0", 1.5), ("linux", "2", 7.5), ("darwin", "2", round(7.5 / 1024, 1))],
)
def test_under_a_runner_a_program_says_its_peak_memory_with_its_helpers(system, helpers, said, monkeypatch, capsys):
    asked = []
    used = {resource.RUSAGE_SELF: 1.5 * 2**20, resource.RUSAGE_CHILDREN: 3 * 2**20}
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=used[who]))
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **options: asked.append(options), raising=False)
    for name in ("prepare_environment", "reuse_freed_memory", "end_with_parent", "watch_interrupts"):
        monkeypatch.setattr(processes, name, lambda: None)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("SCHEMA_STUDENT_RUNNER", "1")
    monkeypatch.delenv("SCHEMA_STUDENT_HELPERS", raising=False)
    if helpers:
        monkeypatch.setenv("SCHEMA_STUDENT_HELPERS", helpers)
    with pytest.raises(SystemExit) as left:
        run_script(lambda: None)
    assert left.value.code == 0 and capsys.readouterr().out == f"  peak memory {said:.1f} GiB\n"
    assert asked == [{"line_buffering": True}]


FREED = """
import resource, sys
from schema_student.core.processes import reuse_freed_memory

if sys.argv[1] == "reuse":
    reuse_freed_memory()
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = bytearray(64 << 20)
    array[:: 4096] = bytes(len(array) // 4096)
    del array
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_memory_that_was_freed_is_taken_again_without_new_pages():
    first, *later = _count_faults("reuse")
    fresh = _count_faults("not")
    assert first > 1_000 and max(later) < first / 10
    assert min(fresh) > 1_000, "without it each array of 64 MiB is mapped anew"


def _count_faults(word: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", FREED, word], capture_output=True, text=True, timeout=60, check=True)
    return [int(count) for count in done.stdout.split()]


def test_a_process_is_running_until_it_was_waited_for():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(process.pid) and is_running(process.pid, mine=True)
    process.communicate(b"\n", timeout=60)
    assert not is_running(process.pid) and not is_running(0) and not is_running(-1) and not is_running(2**70)


def test_what_is_set_already_stays_in_the_environment(monkeypatch):
    monkeypatch.setattr(os, "environ", found := {"MPLBACKEND": "svg"})
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    prepare_environment()
    assert found == {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
        "LRU_CACHE_CAPACITY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "svg",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    found.clear()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    prepare_environment()
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in found and found["MPLBACKEND"] == "Agg"


def test_of_several_processes_the_first_writes(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (process_index(), process_count(), is_first_process()) == (0, 1, True)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (process_index(), process_count(), is_first_process()) == (1, 3, False)


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0: {3, 5, 7}}[pid], raising=False)
    assert count_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cores() == 1


def test_a_process_of_another_user_runs_and_is_not_mine(monkeypatch):
    def refuse(pid, signal):
        assert (pid, signal) == (7, 0)
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert is_running(7) and not is_running(7, mine=True)


ENDINGS = """
import errno, json, logging, sys
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.log import log
from schema_student.core.processes import run_script

def end(error):
    def main():
        if error:
            raise error
    try:
        run_script(main)
    except SystemExit as left:
        return left.code
    except Exception as raised:
        return type(raised).__name__

full = OSError(errno.ENOSPC, "No space left on device", "/full/x")
errors = [None, UserError("mend it"), SettingsError("wrong"), KeyboardInterrupt(), BrokenPipeError(), full]
errors += [OSError(errno.EROFS, "Read-only"), OSError(errno.EIO, "broken"), ZeroDivisionError("by 0")]
codes = [end(error) for error in errors]
log.setLevel(logging.DEBUG)
codes += [end(error) for error in errors[-2:]]
print(json.dumps(codes))
"""
GO_ON = "mend that, then run the same command to continue"
TOLD = "run.log in the run's folder has the traceback"


def test_each_end_of_a_program_has_its_code_and_its_line():
    environment = {name: value for name, value in os.environ.items() if name != "SCHEMA_STUDENT_RUNNER"}
    done = subprocess.run(
        [sys.executable, "-c", ENDINGS], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert json.loads(done.stdout) == [0, 1, 2, 130, 1, 1, 1, "OSError", "ZeroDivisionError", 1, 1]
    assert done.stderr.splitlines() == [
        "error: mend it",
        "error: wrong",
        "interrupted; run the same command to continue",
        f"error: /full/x: No space left on device; {GO_ON}",
        f"error: Read-only; {GO_ON}",
        f"error: OSError: [Errno 5] broken; {TOLD}",
        f"error: ZeroDivisionError: by 0; {TOLD}",
    ]


PEAK = """
import subprocess, sys
from schema_student.core.processes import run_script

def main():
    held = bytearray(600 << 20)
    subprocess.run([sys.executable, "-c", "held = bytearray(400 << 20)"], check=True)

run_script(main)
"""


def test_the_peak_memory_is_what_was_held():
    environment = {**os.environ, "SCHEMA_STUDENT_RUNNER": "1", "SCHEMA_STUDENT_HELPERS": "2"}
    # By a shell, as under a runner: Linux counts the memory of the process that starts another as a peak of that one.
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", PEAK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0 and done.stdout.startswith("  peak memory ") and done.stdout.endswith(" GiB\n")
    assert 1.4 <= float(done.stdout.split()[2]) <= 1.8
