"""Lock the run's folder of a training stage, write its run_config.json, report what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact, read_meta
from schema_student.core.chunks import ALONE, Ranks
from schema_student.core.jsonl import read_object
from schema_student.core.log import log
from schema_student.core.processes import is_first_process, process_count
from schema_student.core.records import CorpusRow, Pair
from schema_student.core.settings import ResolvedSettings
from schema_student.core.stamps import beside, digest, versions
from schema_student.student.choice import hub_revision
from schema_student.student.loading import Student
from schema_student.student.tokens import explain_template
from schema_student.training import local_workers

IMPORTED = ("rows", "layouts", "left_out", "unused_columns")  # of an imported file's .meta.json
MIXED = "sources"  # and where several data sets were mixed: the rows of each, by split
VOUCHED = ("*.json", "*.jsonl", "checkpoint-final/*")  # of a finished run; each checkpoint-N vouches for itself


def make_run(
    run_dir: Path,
    stamp: dict[str, Any],
    inputs: Sequence[Path],
    overwrite: bool,
    train: Callable[[Path], dict[str, Any]],
) -> Path:
    """Have all processes `train` into a folder, unless the run's is finished; returns its checkpoint-final.

    The first process holds the lock and writes; the others hear from it whether there is anything to do, and in which
    folder: another one while the old run stands. A run goes on with as many as began it.
    """
    stamp = {**stamp, **_count_processes(None if overwrite else read_meta(run_dir))}
    with open_artifact(run_dir, stamp, inputs, overwrite) if is_first_process() else nullcontext() as artifact:
        folder = _share_folder("" if artifact is None or artifact.done else str(artifact.work))
        if folder:
            facts = train(Path(folder))
            if artifact:
                artifact.finish(facts, VOUCHED)
    return run_dir / "checkpoint-final"


def run_first(action: Callable[[], Any]) -> None:
    """Run an action before training, in the first process; the others wait until it is done."""
    if process_count() == 1 or local_workers.idle:
        action()
        return
    from schema_student.training.distributed import main_process_first  # loads torch

    main_process_first(action)


def join_ranks() -> Ranks:
    """Return how torchrun's processes divide the work of a stage that trains nothing; one process does all of it."""
    if process_count() == 1:
        return ALONE
    from schema_student.training.distributed import broadcast, share_chunks  # loads torch

    return Ranks(broadcast, share_chunks)


def _count_processes(finished: dict[str, Any] | None) -> dict[str, int]:
    """Count what a stamp holds: torchrun's processes, which multiply a step, and local workers, which share it.

    A finished run is the same, whatever number shared its steps: "auto" is another one on another machine.
    """
    launched = local_workers.launched_count()
    workers = process_count() // launched
    return {"processes": launched, "workers": (finished or {}).get("workers", workers)}


def _share_folder(known: str) -> str:
    """Tell every process what the first one knows: the folder to train into, "" for none."""
    if process_count() == 1 or local_workers.idle:
        return known
    from schema_student.training.distributed import broadcast  # loads torch

    return str(broadcast(known))


def run_facts(stage: str, settings: ResolvedSettings, student: Student, data: Sequence[Path]) -> dict[str, Any]:
    """Collect what run_config.json says of any stage: settings, student, digests of the data, versions."""
    choice = student.choice
    who = {"name": choice.name, "kind": choice.kind, "base": choice.base, "backend": choice.backend}
    if not Path(choice.base).is_dir():
        who["revision"] = hub_revision(choice.base)
    return {
        "stage": stage,
        "settings": settings.flat(),
        "student": {**who, "digest": student.digest, "reason": choice.reason},
        "data": {path.name: digest(path) for path in data},
        "versions": versions(),
    }


def imported_facts(data: Path) -> dict[str, Any] | None:
    """Return what an import kept of --data-set: rows, layouts, sources, what is left out; None for other data."""
    meta = read_meta(data) or {}
    known = {key: meta[key] for key in (*IMPORTED, MIXED) if key in meta}
    return known if all(key in known for key in IMPORTED) else None


def say_rows(facts: dict[str, Any], trained: int) -> None:
    """Say at the end how many rows of --data-set were trained on, and why the others were not."""
    if imported := facts["data_set"]:
        faults = Counter(imported["left_out"]) + Counter(facts["left_out"])
        listed = ", ".join(f"{n} {fault}" for fault, n in faults.items())
        left_out = f", {faults.total()} left out: {listed}" if faults else ""
        log.info(f"  of your own data {trained} rows were trained on{left_out}")


def say_template(tokenizer: Any, rows: Sequence[CorpusRow] | Sequence[Pair]) -> None:
    """Say once how prompts are written that the base's chat template has no place for."""
    if any(row.origin for row in rows):
        for line in explain_template(tokenizer, [(row.prompt, row.tools) for row in rows]):
            log.info(f"  {line}")


def origin_of(facts: dict[str, Any], run_dir: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Take of a run's facts what its checkpoints are of, with the digest of the adapter that it began with.

    Settings are those of the stamp that began the run's folder, as far as they decide what is learned.
    """
    stamp = read_object(beside(run_dir, "partial")) if beside(run_dir, "partial").exists() else {}
    weights = digest(adapter / "adapter_model.safetensors") if adapter else None
    return {
        "objective": facts["stage"],
        "base": facts["student"]["digest"],
        "data": facts["data"],
        "adapter": weights,
        "processes": process_count(),
        "settings": {**stamp.get("settings", {}), "seed": stamp.get("seed")},
    }
