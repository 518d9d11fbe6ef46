"""Choose the checkpoint that training goes on from: the newest whole one of its run, or the one that a person names."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, remove_folder, write_bytes
from schema_student.core.jsonl import read_object, truncate_log
from schema_student.core.log import log
from schema_student.core.processes import is_first_process
from schema_student.core.setting_groups import LATEST
from schema_student.student.loading import Student
from schema_student.training.checkpoints import (
    MANIFEST,
    Origin,
    find_checkpoints,
    find_fault,
    load_checkpoint,
    read_whole,
    remove_drafts,
    step_of,
    whole_checkpoints,
)
from schema_student.training.distributed import broadcast, wait_for_everyone
from schema_student.training.metrics_log import METRICS


@dataclass(frozen=True)
class Trained:
    """What a checkpoint gives its state back to; `objective` is the loop's view of a stage (loop.Objective)."""

    student: Student
    optimizer: Any
    scheduler: Any
    objective: Any


def resume(trained: Trained, run_dir: Path, origin: Origin, asked: str) -> int:
    """Load the checkpoint to go on from and cut the logs back to it; returns its step, 0 where there is none."""
    logs = (METRICS, *trained.objective.logs)
    checkpoint = choose_start(run_dir, origin, asked, logs)
    first = step_of(checkpoint) if checkpoint else 0
    if is_first_process():
        for name in logs:
            truncate_log(run_dir / name, first if checkpoint else -1)
    remove_drafts(run_dir)
    if checkpoint:
        log.info(f"  continuing after {checkpoint}")
        with read_whole(checkpoint):
            state = load_checkpoint(checkpoint, trained.student, trained.optimizer, trained.scheduler)
            trained.objective.load_state_dict(state)
    wait_for_everyone()
    return first


def choose_start(run_dir: Path, origin: Origin, asked: str, logs: Sequence[str] = ()) -> Path | None:
    """Choose the checkpoint to go on from: the newest whole one of the run, or that of --resume-from-checkpoint.

    None where there is none. The first process chooses, and says it to the others. One of another folder is copied
    into the run's, with the `logs` and the checkpoints before it. Raises UserError for a named one with a fault.
    """
    name = ""
    if is_first_process():
        known = whole_checkpoints(run_dir, origin) if asked == LATEST else [_take(Path(asked), run_dir, origin, logs)]
        name = known[-1].name if known else ""
    name = broadcast(name)
    return run_dir / name if name else None


def _take(checkpoint: Path, run_dir: Path, origin: Origin, logs: Sequence[str]) -> Path:
    """Take a checkpoint that a person named: in the run's folder nothing of a later step is left."""
    if not checkpoint.is_dir():
        there = ", ".join(map(str, find_checkpoints(run_dir))) or "none is in the run's folder"
        raise UserError(f"--resume-from-checkpoint {checkpoint}: there is no such folder; there are: {there}")
    if fault := find_fault(checkpoint, origin):
        advice = f"give another one, or {LATEST}: the newest whole one of the run's folder"
        raise UserError(f"--resume-from-checkpoint {checkpoint}: {fault}; {advice}")
    step = int(read_object(checkpoint / MANIFEST)["step"])
    if checkpoint.resolve().parent != run_dir.resolve():
        _copy_run(checkpoint, step, run_dir, origin, logs)
    for later in find_checkpoints(run_dir):
        if step_of(later) > step:
            log.info(f"  {later} is of a later step: it is removed, and made again")
            remove_folder(run_dir, later.name)
    return run_dir / f"checkpoint-{step}"


def _copy_run(checkpoint: Path, step: int, run_dir: Path, origin: Origin, logs: Sequence[str]) -> None:
    """Copy a checkpoint of another folder into the run's, with those before it and the logs: the choice needs them."""
    beside = [path for path in find_checkpoints(checkpoint.parent) if step_of(path) < step]
    earlier = [path for path in beside if not find_fault(path, origin)]
    for source in (*earlier, checkpoint):
        name = f"checkpoint-{step_of(source) if source in earlier else step}"
        draft = make_folder(make_folder(run_dir / ".partial") / name)
        shutil.copytree(source, draft, dirs_exist_ok=True)
        remove_folder(run_dir, name)
        draft.rename(run_dir / name)
    for name in logs:
        for file in (checkpoint.parent / name, *(checkpoint.parent / Path(name).stem).glob("*.npy")):
            if file.is_file():
                write_bytes(run_dir / file.relative_to(checkpoint.parent), file.read_bytes())
