"""What all tests share. Warnings are errors (pyproject.toml lists the exceptions with their reasons)."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

# For the scripts that tests start.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
# A script under runTests.sh is no stage of a runner: it refuses flags that it does not read, and says no peak memory.
os.environ.pop("SCHEMA_STUDENT_RUNNER", None)
# Before torch is imported: spinning threads make small tensors slow on few cores.
if "--real" not in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The same on every machine; benchmarks/gpu.sh checks what a GPU computes.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
from hypothesis import settings

from schema_student.teacher import dispatch
from schema_student.teacher.addresses import APIS

# A shell starts background jobs with SIGINT ignored, and so does what they start: tests of Ctrl-C would fail there.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Derandomized: the same examples on every machine. No deadline: cores are shared.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")


def pytest_addoption(parser):
    parser.addoption("--real", action="store_true", help="only the tests of the real Gemma 3 270M, which is fetched")


def pytest_collection_modifyitems(config, items):
    """Keep the tests of the real Gemma with --real, and all others without."""
    kept = [item for item in items if bool(item.get_closest_marker("real")) == config.getoption("--real")]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Escape lone surrogates, which tests of hostile texts log: no report with one reaches pytest-xdist."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    said = str(report.longrepr or "")
    if said != (escaped := said.encode("utf-8", "backslashreplace").decode()):
        report.longrepr = escaped
    return report


@pytest.fixture(autouse=True)
def spoken():
    """What is logged is said on the terminal, as programs do, so that capsys sees it."""
    from schema_student.core.log import log_to_terminal

    log_to_terminal()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Next to no waiting between tries."""
    monkeypatch.setattr(dispatch, "FIRST_PAUSE", 0.001)


@pytest.fixture
def nothing_named(monkeypatch, tmp_path):
    """No teacher named by this machine, and none at Ollama's own port."""
    for name in ("LLM_MODEL", "OLLAMA_HOST", "OLLAMA_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(APIS, "ollama", replace(APIS["ollama"], address="http://127.0.0.1:9"))
