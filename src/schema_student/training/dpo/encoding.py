"""Encode preference pairs as token ids and as batches: the chosen sequences first, then the rejected ones."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from schema_student.core.records import Pair
from schema_student.core.settings import ResolvedSettings
from schema_student.core.tally import Tally
from schema_student.student import batching
from schema_student.student.tokens import TurnsRefused, encode_until
from schema_student.training.batches import Batch, Batches, Row

SIDES = ("chosen", "rejected")


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: Any,
    settings: ResolvedSettings,
    tally: Tally,
    path: Path,
    trees: bool,
    whole: bool = False,
) -> list[Row]:
    """Encode pairs as {chosen, rejected, key, name, split, ranks}; those with nothing to supervise or no room count.

    `whole` answers, whatever DPO's settings leave out: the score of a reward model is that of an answer with its end.
    """
    rows = []
    for number, pair in enumerate(pairs, start=1):
        name = pair.origin or f"{path.name}:{number}"
        try:
            sides = [
                batching.encode(tokenizer, pair.prompt, side, **pair.context) for side in (pair.chosen, pair.rejected)
            ]
        except TurnsRefused as refused:
            tally.add(str(refused), name)
            continue
        chosen, rejected = sides
        fault = batching.find_fault(chosen, settings) or batching.find_fault(rejected, settings)
        fault = fault or ("chosen equals rejected" if chosen == rejected else "")
        too_long = not fault and batching.count_tokens([chosen, rejected], trees) > settings.batching.batch_tokens
        fault = "pair longer than batch_tokens" if too_long else fault
        if batching.keep_whole(fault, name, tally, settings):
            row = {"chosen": chosen, "rejected": rejected, "key": pair.schema_id, "name": name, "split": pair.split}
            row["ranks"] = pair.chosen_rank, pair.rejected_rank
            rows.append(row if whole else _reduce(row, pair, tokenizer, settings))
    return rows


def _reduce(row: Row, pair: Pair, tokenizer: Any, settings: ResolvedSettings) -> Row:
    """Leave out of a pair what the settings give no credit: what follows the first wrong value, what is the same."""
    chosen, rejected = row["chosen"].completion_ids, row["rejected"].completion_ids
    if settings.dpo.dpo_credit == "divergent":
        row["credit"] = mark_differing(chosen, rejected)
    if settings.dpo.rejected_cut and pair.rejected_end is not None:
        kept = encode_until(tokenizer, pair.rejected, pair.rejected_end)
        if kept != chosen[: len(kept)]:  # else nothing of it is wrong yet
            row["cut"] = len(kept) < len(rejected)
            row["rejected"] = batching.Ids(row["rejected"].prompt_ids, kept)
    return row


def count_cut(rows: Sequence[Row]) -> int:
    """Count the pairs whose rejected answer is cut."""
    return sum(row.get("cut", False) for row in rows)


def mark_differing(chosen: Sequence[int], rejected: Sequence[int]) -> tuple[list[int], list[int]]:
    """Mark with 1 the tokens in which two answers differ, 0 those of what both have.

    Where one has nothing that the other has, the token with which it goes on instead is marked.

    >>> mark_differing([7, 1, 2, 9], [7, 3, 9])
    ([0, 1, 1, 0], [0, 1, 0])
    >>> mark_differing([7, 9], [7, 3, 9])
    ([0, 1], [0, 1, 0])
    """
    marks = [0] * len(chosen), [0] * len(rejected)
    for tag, *spans in SequenceMatcher(None, chosen, rejected, autojunk=False).get_opcodes():
        for marked, start, end in zip(marks, spans[::2], spans[1::2], strict=True):
            end = end if tag == "equal" else min(max(end, start + 1), len(marked))
            marked[start:end] = [int(tag != "equal" or mark) for mark in marked[start:end]]
    return marks


def add_anchors(pairs: Sequence[Row], anchors: Sequence[Row], count: int) -> None:
    """Give each pair `count` anchors in turn, of its own schema where there are any, as these share its prompt."""
    everything = cycle(anchors)
    by_key = {key: cycle([row for row in anchors if row["key"] == key]) for key in {row["key"] for row in anchors}}
    for pair in pairs:
        turn = by_key.get(pair["key"], everything)
        pair["anchors"] = [next(turn)["ids"] for _ in range(count)]


def pair_sequences(row: Row) -> list[batching.Ids]:
    """Return the two sequences of a pair and those of its anchors, which share a batch."""
    return [*(row[side] for side in SIDES), *row.get("anchors", ())]


def pair_length(row: Row) -> int:
    """Count the tokens of a pair's two sequences."""
    return len(row["chosen"]) + len(row["rejected"])


def collate_pairs(rows: Sequence[Row], batches: Batches) -> Batch:
    """Collate a batch of pairs: 2 B sequences, then their anchors; the reference's log p of each (2 B,) where known.

    `credit` (2 B, C) marks the tokens that a margin is made of, where these are not all.
    """
    sequences = [row[side] for side in SIDES for row in rows]
    sequences += [anchor for row in rows for anchor in row.get("anchors", ())]
    more: Batch = {}
    if "reference" in rows[0]:
        more["reference_logps"] = torch.tensor([row["reference"] for row in rows]).T.reshape(-1)
    if "credit" in rows[0]:
        width = max(len(each.completion_ids) for each in sequences)
        marks = [row["credit"][side] for side in range(len(SIDES)) for row in rows]
        lengths = [len(each.completion_ids) for each in sequences]
        more["credit"] = torch.tensor([m[:n] + [0] * (width - n) for m, n in zip(marks, lengths, strict=False)])
    return batches.collate(sequences, names=[row["name"] for row in rows], **more)


def credited_logps(logps_BC: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Sum the log p of the credited tokens of each completion of a pair, chosen then rejected (2 B,)."""
    pairs_BC = logps_BC[: 2 * len(batch["names"])]
    return (pairs_BC * batch["credit"] if "credit" in batch else pairs_BC).sum(-1)
