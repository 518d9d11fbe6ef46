"""Save, find, load and publish the checkpoints of a run's folder.

checkpoint-N is what training goes on from after step N: the adapter, the optimizer, the learning rate's schedule, the
random state of each process, and what the objective keeps. It is written in .partial and renamed when it is whole, so
that a kill leaves no half of one. Its manifest.json, written last, says of what it is (objective, base, data, settings,
processes), and the SHA-256 of each file: what was deleted, cut, added or changed since is found, and never trained on.
checkpoint-final is the adapter alone that a stage chose.
"""

from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, remove_folder
from schema_student.core.integrity import find_damage, vouch
from schema_student.core.jsonl import read_object, write_json
from schema_student.core.log import log
from schema_student.core.processes import is_first_process, process_count, process_index
from schema_student.core.stamps import find_differences
from schema_student.student.loading import Student, read_weights, save_adapter, write_adapter_record
from schema_student.training.distributed import wait_for_everyone
from schema_student.training.sharding import gather_state

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
STATE = "stage_state.json"
SHARED_FILES = (*ADAPTER_FILES, "optimizer.pt", "scheduler.pt", STATE)  # of all processes of a run
MANIFEST = "manifest.json"
Origin = dict[str, Any]  # what a checkpoint is of: stage.origin_of
STRANGERS = {
    "objective": "another objective",
    "base": "another base",
    "data": "other data",
    "adapter": "another adapter",
    "processes": "another number of processes",
}
SHOWN = ("objective", "processes")  # of what a checkpoint is of: what says more to people than a digest


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint-N was saved."""
    return int(checkpoint.name.split("-")[-1])


def find_checkpoints(run_dir: Path) -> list[Path]:
    """Find every checkpoint-N in order of steps, whole or not."""
    return sorted((path for path in run_dir.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()), key=step_of)


def find_fault(checkpoint: Path, origin: Origin) -> str:
    """Say why training cannot go on from a checkpoint-N; "" where it is whole and of this origin."""
    try:
        manifest = read_object(checkpoint / MANIFEST, step=int, origin=dict, files=dict)
        step, vouched = int(manifest["step"]), manifest["files"]
        others = _list_differences(manifest["origin"], origin)
        damage = find_damage(checkpoint, vouched)
    except (UserError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} is missing or broken"
    if damage:
        return ", ".join(f"{name} {what}" for name, what in damage.items())
    files = {file.relative_to(checkpoint).as_posix() for file in checkpoint.rglob("*") if file.is_file()}
    if unknown := sorted(name for name in files - {*vouched, MANIFEST} if not Path(name).name.startswith(".")):
        return f"it holds {', '.join(unknown)}, which its {MANIFEST} does not know"
    if checkpoint in find_checkpoints(checkpoint.parent) and step_of(checkpoint) != step:
        return f"it is of step {step}, not of the one in its name"
    if others:
        return f"it is of {', '.join(others)}"
    missing = [name for name in (*SHARED_FILES, random_state_name()) if name not in vouched]
    return f"it has no {', '.join(missing)}" if missing else ""


def _list_differences(own: Origin, origin: Origin) -> list[str]:
    """List what a checkpoint is of that this run is not; of another objective all else is another matter."""
    found: list[str] = []
    for key, words in STRANGERS.items():
        if own.get(key) != origin.get(key):
            found.append(words + (f" ({own.get(key)}, here {origin.get(key)})" if key in SHOWN else ""))
    if own.get("objective") != origin.get("objective"):
        return found[:1]
    changed = find_differences(own.get("settings") or {}, origin.get("settings") or {})
    return found + ([f"other settings ({'; '.join(changed)})"] if changed else [])


def whole_checkpoints(run_dir: Path, origin: Origin) -> list[Path]:
    """Find the checkpoints that training can go on from, in order of steps; says of each other one why not."""
    found = []
    for checkpoint in find_checkpoints(run_dir):
        if fault := find_fault(checkpoint, origin):
            log.info(f"  {checkpoint} is passed over: {fault}")
        else:
            found.append(checkpoint)
    return found


def remove_drafts(run_dir: Path) -> None:
    """Remove what a kill left half written."""
    if is_first_process():
        remove_folder(run_dir, ".partial")
    wait_for_everyone()


def save_checkpoint(
    run_dir: Path, step: int, student: Student, optimizer: Any, scheduler: Any, state: dict[str, Any], origin: Origin
) -> None:
    """Write checkpoint-N of this step; all processes call it, the first one writes what they share."""
    name = f"checkpoint-{step}"
    draft = make_folder(make_folder(run_dir / ".partial") / name)
    torch.save(random_state(), draft / random_state_name())
    optimizer_state = gather_state(optimizer.state_dict())
    if is_first_process():
        save_adapter(draft, student)
        torch.save(optimizer_state, draft / "optimizer.pt")
        torch.save(scheduler.state_dict(), draft / "scheduler.pt")
        write_json(draft / STATE, {"step": step, **state})
    wait_for_everyone()
    if is_first_process():
        write_json(draft / MANIFEST, {"step": step, "origin": origin, "files": vouch(draft)})
        remove_folder(run_dir, name)
        draft.rename(run_dir / name)


def load_checkpoint(checkpoint: Path, student: Student, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """Put back what a checkpoint-N holds; returns what the objective kept in it. Raises what read_whole raises."""
    with read_whole(checkpoint):
        read_weights(student.model, checkpoint)
        optimizer.load_state_dict(_load_tensors(checkpoint / "optimizer.pt"))
        scheduler.load_state_dict(_load_tensors(checkpoint / "scheduler.pt"))
        set_random_state(_load_tensors(checkpoint / random_state_name()))
        return read_object(checkpoint / STATE)


def _load_tensors(path: Path) -> Any:
    """Tensors and plain values of a file; raises UnpicklingError for any that would run code."""
    return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def read_whole(checkpoint: Path) -> Iterator[None]:
    """Raise UserError that names the checkpoint where a part of it is missing, broken or of another kind."""
    try:
        yield
    except UserError:
        raise
    except pickle.UnpicklingError:  # its text advises to load it all the same
        reason = "a file in it is broken, or holds more than tensors and numbers, which is never loaded"
        raise _unreadable(checkpoint, reason) from None
    except (
        OSError,
        EOFError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0][:300]}"
        raise _unreadable(checkpoint, reason) from None


def _unreadable(checkpoint: Path, reason: str) -> UserError:
    advice = "remove it, and training goes on from the checkpoint before it, or from the start"
    return UserError(f"{checkpoint} cannot be gone on from ({reason}); {advice}")


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
    remove_folder(run_dir, draft.name)
    make_folder(draft)
    for name in ADAPTER_FILES:
        shutil.copyfile(source / name, draft / name)
    write_adapter_record(draft, student)
    remove_folder(run_dir, final.name)
    draft.rename(final)
    return final
