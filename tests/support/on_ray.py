"""What tests of a Ray cluster run in a process of their own, on a local cluster of two workers.

    python tests/support/on_ray.py map|data|evaluate FOLDER

`map` kills the first worker that comes to row 7 of 24; the others run a stage on the settings of FOLDER/settings.json.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from schema_student.core.chunks import map_chunks
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_object, write_json
from schema_student.core.settings import default_settings


def double(folder: Path, chunk: list[int]) -> list[int]:
    """Double the numbers of a chunk; once, the worker is lost."""
    flag = folder / "killed"
    if 7 in chunk and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [2 * number for number in chunk]


def refuse(chunk: list[int]) -> list[int]:
    """Refuse a chunk as a function refuses what a person did wrong."""
    raise UserError(f"{chunk} is no chunk")


def map_all(folder: Path) -> None:
    """Write what comes of 24 numbers, and of a function that refuses."""
    chunks = [list(range(begin, begin + 4)) for begin in range(0, 24, 4)]
    found = [number for part in map_chunks(partial(double, folder), chunks, "ray", 2) for number in part]
    try:
        said = str(list(map_chunks(refuse, chunks[:1], "ray")))
    except UserError as error:
        said = str(error)
    write_json(folder / "found.json", {"found": found, "said": said, "killed": (folder / "killed").exists()})


def make_data(folder: Path) -> None:
    """Make a data set."""
    from schema_student.data.dataset import write_dataset

    write_dataset(default_settings(**read_object(folder / "settings.json"), on="ray", workers=2))


def evaluate(folder: Path) -> None:
    """Evaluate a base, and sample rollouts."""
    from schema_student.evaluation.evaluate import evaluate_student
    from schema_student.preference.rollouts import make_rollouts

    settings = default_settings(**read_object(folder / "settings.json"), on="ray", workers=2)
    evaluate_student(settings, "student-base")
    make_rollouts(settings)


def start_cluster() -> None:
    """Start a local cluster of two workers; again where a busy machine takes longer than Ray waits for itself."""
    import ray

    for last in (False, False, True):
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            return
        except Exception:
            if last:
                raise
            ray.shutdown()


def run_on_ray(what: str, folder: Path) -> None:
    """Run tests/support/on_ray.py; skips where Ray is not installed."""
    found = importlib.util.find_spec("ray")
    if found is None:
        pytest.skip("Ray is not installed (extra ray)")
    me = Path(__file__)
    known = os.pathsep.join(map(str, (me.parents[2] / "src", me.parent, Path(found.origin).parents[1])))
    environment = {**os.environ, "PYTHONPATH": known, "RAY_USAGE_STATS_ENABLED": "0"}
    words = [sys.executable, str(me), what, str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    start_cluster()
    {"map": map_all, "data": make_data, "evaluate": evaluate}[sys.argv[1]](Path(sys.argv[2]))
