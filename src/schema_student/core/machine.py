"""Describe the machine that something ran on: system, processor, cores, memory, GPUs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from schema_student.core.processes import count_cores

GIB = 2**30


def describe_machine() -> dict[str, Any]:
    """Describe this machine; memory in GiB, None where the system does not tell it."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "processor": name_processor(),
        "cores": count_cores(),
        "memory_gib": _measure_memory(),
        "gpus": _list_gpus(),
    }


def name_processor() -> str:
    """Return the processor's model as Linux names it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _measure_memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, ValueError, OSError):  # not every system has these names
        return None


def _list_gpus() -> list[str]:
    """Each GPU's name and memory as NVIDIA's own tool tells them; nothing is loaded for that."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
