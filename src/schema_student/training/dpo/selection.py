"""Choose DPO's checkpoint by reading right answers; step 0, the student that it began with, is one too.

A low DPO loss does not mean better answers. Where there are too few requests the held-out pairs decide, and where these
are too few as well, nothing does: the last checkpoint is taken, and that is said. Too few are those that could not show
a gain beyond chance whichever way they fell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.statistics import sign_test
from schema_student.training.alignment.selection import choose_by_reading, chosen, read_validations
from schema_student.training.alignment.validation import CHANCE, FEWEST


def describe_few(requests: int, pairs: int) -> str:
    """Say that neither requests nor held-out pairs are enough to choose a checkpoint by; "" where one of them is."""
    if max(requests, pairs) >= FEWEST:
        return ""
    if not requests and not pairs:
        return "there are no validation requests, nor held-out pairs"
    few = f"{_count(requests, 'validation request')} and {_count(pairs, 'held-out pair')} are too few to choose by"
    return f"{few} ({FEWEST} of one kind are needed)"


def choose_checkpoint(run_dir: Path, saved: Sequence[int]) -> dict[str, Any]:
    """Choose of the saved steps the final one; step 0 is the student before, which "sft_was_better" names.

    By FEWEST validation requests or more: see alignment.selection; else by as many held-out pairs: see
    _choose_by_pairs; else the last one is taken.
    """
    rows = read_validations(run_dir, [0, *saved])
    requests, pairs = (rows[0].get("eval_requests", 0), rows[0].get("eval_pairs", 0)) if rows else (0, 0)
    if few := describe_few(requests, pairs):
        return chosen(max(saved), f"the last one: {few}", by="nothing")
    if requests >= FEWEST:
        return choose_by_reading([row for row in rows if row["step"]])
    return _choose_by_pairs(rows, f", as {_count(requests, 'validation request')} are too few" if requests else "")


def _choose_by_pairs(rows: Sequence[Row], because: str) -> dict[str, Any]:
    """Choose the step with the most held-out pairs in order, then the least loss.

    SFT orders none, as every margin is 0 there; it is kept where the best step orders them wrongly beyond chance.
    """
    best, by = max((row for row in rows if row["step"]), key=_merit), "held-out pairs"
    pairs, share = best["eval_pairs"], best["eval_rewards/accuracies"]
    right = round(share * pairs)
    why = f"{share:.1%} of {_count(pairs, 'held-out pair')} in order{because}"
    if right < pairs - right and sign_test(right, pairs - right) <= CHANCE:
        return chosen(0, f"no DPO checkpoint was better than SFT: {why}", by)
    return chosen(best["step"], why, by)


def _merit(row: Row) -> tuple[float, ...]:
    """What checkpoints are ordered by, most important first."""
    return row["eval_rewards/accuracies"], -row.get("eval_loss", -row["step"])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
