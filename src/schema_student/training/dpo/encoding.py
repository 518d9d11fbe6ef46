"""Encode preference pairs as token ids and as batches: the chosen sequences first, then the rejected ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schema_student.core.records import Pair
from schema_student.core.settings import ResolvedSettings
from schema_student.core.tally import Tally
from schema_student.student import batching
from schema_student.student.tokens import TurnsRefused
from schema_student.training.batches import Batch, Batches, Row

SIDES = ("chosen", "rejected")


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: Any, settings: ResolvedSettings, tally: Tally, path: Path, trees: bool
) -> list[Row]:
    """Encode pairs as {chosen, rejected, name, split} of ids; those with nothing to supervise or no room count."""
    rows = []
    for number, pair in enumerate(pairs, start=1):
        name = pair.origin or f"{path.name}:{number}"
        try:
            chosen, rejected = (
                batching.encode(tokenizer, pair.prompt, side, **pair.context) for side in (pair.chosen, pair.rejected)
            )
        except TurnsRefused as refused:
            tally.add(str(refused), name)
            continue
        fault = batching.find_fault(chosen, settings) or batching.find_fault(rejected, settings)
        fault = fault or ("chosen equals rejected" if chosen == rejected else "")
        too_long = not fault and batching.count_tokens([chosen, rejected], trees) > settings.batching.batch_tokens
        fault = "pair longer than batch_tokens" if too_long else fault
        if batching.keep_whole(fault, name, tally, settings):
            sides = {"chosen": chosen, "rejected": rejected, "key": pair.schema_id}
            rows.append({**sides, "name": name, "split": pair.split})
    return rows


def pair_sequences(row: Row) -> list[batching.Ids]:
    """Return the two sequences of a pair, which share a batch."""
    return [row[side] for side in SIDES]


def pair_length(row: Row) -> int:
    """Count the tokens of a pair's two sequences."""
    return len(row["chosen"]) + len(row["rejected"])


def collate_pairs(rows: Sequence[Row], batches: Batches) -> Batch:
    """Collate a batch of pairs: 2 B sequences, and where they are known the reference's log p of each (2 B,)."""
    known = "reference" in rows[0]
    reference = {"reference_logps": torch.tensor([row["reference"] for row in rows]).T.reshape(-1)} if known else {}
    return batches.collate(
        [row[side] for side in SIDES for row in rows], names=[row["name"] for row in rows], **reference
    )


def sequence_logps(batch: Batch, batches: Batches) -> torch.Tensor:
    """Compute log p of whole completions, chosen then rejected (2 B,)."""
    return batches.completion_logps(batch).sum(-1)
