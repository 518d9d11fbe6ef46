"""Save, find, load and publish the checkpoints of a run's folder.

checkpoint-N is what training goes on from after step N: the adapter, the optimizer, the learning rate's schedule, the
random state of each process, and what the objective keeps. It is written in .partial and renamed when it is whole, so
that a kill leaves no half of one. Its manifest.json, written last, says which base and which data it is of, and the
SHA-256 of each file: what was deleted, cut or changed since is found, and never trained on.
checkpoint-final is the adapter alone that a stage chose.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from schema_student.core.errors import UserError
from schema_student.core.integrity import find_damage, vouch
from schema_student.core.jsonl import read_json, write_json
from schema_student.core.log import log
from schema_student.core.processes import is_first_process, process_count, process_index
from schema_student.student.loading import Student, write_adapter_record
from schema_student.training.distributed import broadcast, wait_for_everyone

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
STATE = "stage_state.json"
SHARED_FILES = (*ADAPTER_FILES, "optimizer.pt", "scheduler.pt", STATE)  # of all processes of a run
MANIFEST = "manifest.json"
Origin = dict[str, Any]  # what a checkpoint is of: digests of the base, of the data, of the adapter that was there
STRANGERS = {"base": "another base", "data": "other data", "adapter": "another adapter"}


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint-N was saved."""
    return int(checkpoint.name.split("-")[-1])


def find_checkpoints(run_dir: Path) -> list[Path]:
    """Find every checkpoint-N in order of steps, whole or not."""
    return sorted((path for path in run_dir.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()), key=step_of)


def find_fault(checkpoint: Path, origin: Origin) -> str:
    """Say why training cannot go on from a checkpoint-N; "" where it is whole and of this base and these data."""
    try:
        manifest = read_json(checkpoint / MANIFEST)
        vouched, own = manifest["files"], manifest["origin"]
        damage = find_damage(checkpoint, vouched)
    except (UserError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} is missing or broken"
    if damage:
        return ", ".join(f"{name} {what}" for name, what in damage.items())
    if missing := [name for name in (*SHARED_FILES, random_state_name()) if name not in vouched]:
        return f"it has no {', '.join(missing)}"
    others = [words for key, words in STRANGERS.items() if own.get(key) != origin[key]]
    return f"it is of {', '.join(others)}" if others else ""


def whole_checkpoints(run_dir: Path, origin: Origin) -> list[Path]:
    """Find the checkpoints that training can go on from, in order of steps; says of each other one why not."""
    found = []
    for checkpoint in find_checkpoints(run_dir):
        if fault := find_fault(checkpoint, origin):
            log.info(f"  {checkpoint} is passed over: {fault}")
        else:
            found.append(checkpoint)
    return found


def last_checkpoint(run_dir: Path, origin: Origin) -> Path | None:
    """Find the newest whole checkpoint-N, None where there is none; the first process says it to the others."""
    known = whole_checkpoints(run_dir, origin) if is_first_process() else []
    name = broadcast(known[-1].name if known else "")
    return run_dir / name if name else None


def remove_drafts(run_dir: Path) -> None:
    """Remove what a kill left half written."""
    if is_first_process():
        shutil.rmtree(run_dir / ".partial", ignore_errors=True)
    wait_for_everyone()


def save_checkpoint(
    run_dir: Path, step: int, student: Student, optimizer: Any, scheduler: Any, state: dict[str, Any], origin: Origin
) -> None:
    """Write checkpoint-N of this step; all processes call it, the first one writes what they share."""
    name = f"checkpoint-{step}"
    draft = run_dir / ".partial" / name
    draft.mkdir(parents=True, exist_ok=True)
    torch.save(random_state(), draft / random_state_name())
    if is_first_process():
        student.model.save_pretrained(str(draft))
        (draft / "README.md").unlink(missing_ok=True)
        write_adapter_record(draft, student)
        torch.save(optimizer.state_dict(), draft / "optimizer.pt")
        torch.save(scheduler.state_dict(), draft / "scheduler.pt")
        write_json(draft / STATE, {"step": step, **state})
    wait_for_everyone()
    if is_first_process():
        write_json(draft / MANIFEST, {"step": step, "origin": origin, "files": vouch(draft)})
        shutil.rmtree(run_dir / name, ignore_errors=True)
        draft.rename(run_dir / name)


def load_checkpoint(checkpoint: Path, student: Student, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """Put back what a whole checkpoint-N holds; returns what the objective kept in it."""
    set_peft_model_state_dict(student.model, load_file(checkpoint / "adapter_model.safetensors"))
    optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True))
    scheduler.load_state_dict(torch.load(checkpoint / "scheduler.pt", weights_only=True))
    set_random_state(torch.load(checkpoint / random_state_name(), map_location="cpu", weights_only=True))
    state: dict[str, Any] = read_json(checkpoint / STATE)
    return state


def random_state() -> dict[str, Any]:
    """Return the state of the generators that training draws from: dropout, and what a stage samples."""
    state = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    random.setstate(state["python"])
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def random_state_name() -> str:
    """Name the file of this process's random state."""
    return f"rng_state_{process_index()}.pth" if process_count() > 1 else "rng_state.pth"


def publish_adapter(source: Path, run_dir: Path, student: Student) -> Path:
    """Make checkpoint-final of an adapter; atomic."""
    draft, final = run_dir / ".checkpoint-final", run_dir / "checkpoint-final"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in ADAPTER_FILES:
        shutil.copyfile(source / name, draft / name)
    write_adapter_record(draft, student)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    return final
