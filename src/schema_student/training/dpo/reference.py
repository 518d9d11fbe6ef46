"""Compute the reference's log-probabilities of all pairs once before the first step, and keep them for later runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.log import log
from schema_student.core.processes import is_first_process
from schema_student.core.settings import ResolvedSettings
from schema_student.core.stamps import digest
from schema_student.student.loading import Student
from schema_student.training.batches import Batches, Row, inference_mode
from schema_student.training.checkpoints import ADAPTER_FILES
from schema_student.training.distributed import gather
from schema_student.training.dpo.encoding import SIDES, collate_pairs, credited_logps, pair_sequences

NAMED = 8  # bad rows that are named


def name_reference(student: Student, adapter: Path, settings: ResolvedSettings) -> str:
    """Compute the digest of what decides the reference's log p: base and adapter, and how they are loaded."""
    files = [digest(adapter / name) for name in ADAPTER_FILES]
    loaded = [student.choice.backend, str(student.model.dtype), settings.loading.load_in_4bit]
    return digest([student.digest, *files, *loaded])


def add_reference_logps(parts: Sequence[Sequence[Row]], batches: Batches, folder: Path, reference: str) -> None:
    """Give each pair the reference's log p of its two completions; computed once and kept in `folder`.

    The file is named by the digest of what decides the numbers: the reference (`reference` is its digest), the pairs
    as token ids, and how they are computed. So a resumed run reads it, and so does any later run on the same pairs,
    with whatever beta, controller or learning rate. Each of the parts is cut into batches for itself: held-out pairs
    in those of the validation, so that the SFT student's margins there are exactly 0.
    """
    rows = [row for part in parts for row in part]
    sides = [
        [row["name"], *([row[s].prompt_ids, row[s].completion_ids] for s in SIDES), *row.get("credit", ())]
        for row in rows
    ]
    how = [str(batches.autocast), batches.trees, batches.batch_size, batches.batch_tokens]
    path = folder / f"{digest([reference, *how, sides])[:16]}.jsonl"
    found = read_jsonl(path) if path.exists() else []
    if {row["name"] for row in rows} <= {row["name"] for row in found}:
        log.info(f"  reference log-probabilities: {path}, computed before")
    else:
        found = [row for part in parts for row in compute_reference_logps(part, batches)]
        if is_first_process():
            write_jsonl(path, found)
    known = {row["name"]: [row[side] for side in SIDES] for row in found}
    for row in rows:
        row["reference"] = known[row["name"]]


def compute_reference_logps(rows: Sequence[Row], batches: Batches) -> list[Row]:
    """Compute {name, chosen, rejected} of each pair; raises UserError where one is not finite."""
    found: list[Row] = []
    for part in batches.own_batches(rows, list(map(pair_sequences, rows))):
        with inference_mode(batches.student.model):
            batch = collate_pairs(part, batches)
            logps = credited_logps(batches.completion_logps(batch), batch)
        for row, chosen, rejected in zip(part, *logps.chunk(2), strict=True):
            found.append({"name": row["name"], "chosen": float(chosen), "rejected": float(rejected)})
    found = gather(found)
    if bad := [row["name"] for row in found if not math.isfinite(row["chosen"] + row["rejected"])]:
        raise UserError(
            f"log-probabilities of the reference are not finite for {', '.join(bad[:NAMED])} ({len(bad)} in all); "
            "look at these rows, or give --dtype float32"
        )
    return found
