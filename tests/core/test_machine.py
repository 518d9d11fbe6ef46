"""What a run ran on is told from what the system says."""

import os
import platform
import subprocess

import pytest

from schema_student.core import machine
from schema_student.core.processes import count_cores


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A machine of 8 GiB, whose processor and GPUs are said by what stands in a folder."""
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**21}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(machine, "Path", {"/proc/cpuinfo": tmp_path / "cpuinfo"}.__getitem__)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_a_machine_is_described(system):
    said = b"processor : 0\nvendor : \xff\nmodel name\t: Some CPU: 2 GHz\nmodel name\t: other\n"
    (system / "cpuinfo").write_bytes(said)
    tool = system / "nvidia-smi"
    asked = '[ "$*" = "--query-gpu=name,memory.total --format=csv,noheader" ] || exit 1'
    tool.write_text(f"#!/bin/sh\n{asked}\necho ' H100, 80 GiB'; echo; echo 'H200, 141 GiB'\n")
    tool.chmod(0o755)
    assert machine.describe_machine() == {
        "system": platform.system(),
        "release": platform.release(),
        "processor": "Some CPU: 2 GHz",
        "cores": count_cores(),
        "memory_gib": 8.0,
        "gpus": ["H100, 80 GiB", "H200, 141 GiB"],
    }
    tool.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    assert machine.describe_machine()["gpus"] == []


def test_what_a_system_does_not_tell_is_left_open(system, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: int("unknown"))
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(subprocess, "run", None)
    found = machine.describe_machine()
    assert (found["memory_gib"], found["gpus"], found["processor"]) == (None, [], "riscv64")
