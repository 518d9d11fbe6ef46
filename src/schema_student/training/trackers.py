"""Send the rows of a run's log to a tracker too: TensorBoard, Weights & Biases or trackio, by accelerate's classes."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schema_student.core.errors import UserError
from schema_student.core.files import refuse_link
from schema_student.core.resources import CHECKOUT
from schema_student.core.settings import AnySettings, ResolvedSettings

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "schema-student"
TRACKERS = {"tensorboard": "TensorBoardTracker", "wandb": "WandBTracker", "trackio": "TrackioTracker"}  # accelerate's


def check_tracker(settings: AnySettings) -> None:
    """Raise UserError, before anything is loaded, where the package of --report-to is not installed."""
    package = settings.tracker.report_to
    if package != "none" and importlib.util.find_spec(package) is None:
        raise UserError(f"--report-to {package} needs a package that is not installed here: {_install(package)}")


def _install(package: str) -> str:
    """The command that installs a package for this Python: a .venv that uv has made has no pip."""
    python, own = shlex.quote(sys.executable), CHECKOUT / ".tools" / "bin" / "uv"
    uv = shutil.which("uv") or (own if own.exists() else None)
    if importlib.util.find_spec("pip") is None and uv:
        return f"{shlex.quote(str(uv))} pip install --python {python} {package}"
    setup = "" if importlib.util.find_spec("pip") else f"{python} -m ensurepip && "
    return f"{setup}{python} -m pip install {package}"


def start_tracker(run_dir: Path, settings: ResolvedSettings) -> GeneralTracker | None:
    """Start what --report-to names, None for none; its files lie in the run's folder."""
    name = settings.tracker.report_to
    if name == "none":
        return None
    if name == "wandb" and os.environ.get("WANDB_MODE") == "disabled":
        del os.environ["WANDB_MODE"]  # the flag asks for it by name
    run = {"name": run_dir.name, "config": settings.flat()}
    arguments: dict[str, dict[str, Any]] = {
        "tensorboard": {"run_name": run_dir.name, "logging_dir": run_dir / "tensorboard"},
        "wandb": {"run_name": os.environ.get("WANDB_PROJECT") or PROJECT, "dir": str(run_dir), **run},
        "trackio": {"run_name": PROJECT, **run},
    }
    for folder in ("tensorboard", "wandb"):
        refuse_link(run_dir / folder)
    from accelerate import tracking

    tracker: GeneralTracker = getattr(tracking, TRACKERS[name])(**arguments[name])
    tracker.start()
    return tracker


def log_to_tracker(tracker: GeneralTracker, row: dict[str, Any]) -> None:
    """Log the numbers of a row under transformers' names: train/loss, eval/loss."""
    numbers = {name: value for name, value in row.items() if not isinstance(value, str)}
    tracker.log({tracker_name(name): value for name, value in numbers.items()}, step=row["step"])


def tracker_name(name: str) -> str:
    """Name a metric for a tracker: eval_loss -> eval/loss, loss -> train/loss."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
