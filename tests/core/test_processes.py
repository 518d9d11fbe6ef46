"""Tests for core.processes: what a program sets for itself before it computes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from schema_student.core.processes import is_running

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
