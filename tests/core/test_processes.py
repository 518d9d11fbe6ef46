"""Tests for core.processes: what a program sets for itself before it computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from schema_student.core.processes import (
    count_cores,
    is_first_process,
    is_running,
    prepare_environment,
    process_count,
    process_index,
)

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
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in found


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


@pytest.mark.parametrize(("helpers", "least", "most"), [("0", 0.6, 0.8), ("2", 1.4, 1.8)])
def test_under_a_runner_a_program_says_its_peak_memory_and_that_of_each_helper(helpers, least, most):
    environment = {**os.environ, "SCHEMA_STUDENT_RUNNER": "1", "SCHEMA_STUDENT_HELPERS": helpers}
    # By a shell, as under a runner: Linux counts the memory of the process that starts another as a peak of that one.
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", PEAK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0 and done.stdout.startswith("  peak memory ") and done.stdout.endswith(" GiB\n")
    assert least <= float(done.stdout.split()[2]) <= most
