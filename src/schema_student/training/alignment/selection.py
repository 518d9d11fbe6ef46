"""Choose an alignment's checkpoint by reading, and keep the student before it where that one is not better.

Tests never choose. Of the checkpoints that of the greatest P(truth) is taken; it replaces the student that the
alignment began with where the paired change is CLEAR standard errors above 0, of fewer than ENOUGH requests VERY_CLEAR.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.jsonl import Row, read_jsonl
from schema_student.core.statistics import z_of
from schema_student.training.alignment.validation import FEWEST
from schema_student.training.metrics_log import METRICS

ENOUGH = 300  # requests
CLEAR, VERY_CLEAR = 2.0, 3.0  # z that is needed with ENOUGH requests, and with fewer
BY = "P(truth) of validation requests"


def choose_checkpoint(run_dir: Path, saved: Sequence[int]) -> dict[str, Any]:
    """Choose of the saved steps the final one; 0 is the student before, which "sft_was_better" says.

    With fewer than FEWEST validation requests the last one is taken, and that is said.
    """
    rows = read_validations(run_dir, saved)
    requests = rows[0].get("eval_requests", 0) if rows else 0
    if requests < FEWEST:
        few = f"{requests} validation requests are too few to choose by" if requests else "no validation request"
        return chosen(max(saved), f"the last one: {few}", "nothing")
    return choose_by_reading(rows)


def read_validations(run_dir: Path, steps: Sequence[int]) -> list[Row]:
    """Read the validations after these steps in a run's log of metrics."""
    return [row for row in read_jsonl(run_dir / METRICS) if "eval_runtime" in row and row["step"] in steps]


def choose_by_reading(rows: Sequence[Row]) -> dict[str, Any]:
    """Choose of the validations of the saved steps the one of the greatest P(truth), if it is better than the start."""
    best = max(rows, key=lambda row: row["eval_p_truth"])
    requests, change, error = best["eval_requests"], best["eval_p_truth_change"], best["eval_p_truth_error"]
    z, needed = z_of(change, error), CLEAR if requests >= ENOUGH else VERY_CLEAR
    before = best["eval_p_truth"] - change
    why = f"P(truth) of {requests} validation requests {before:.1%} -> {best['eval_p_truth']:.1%}"
    why += f" ({change:+.2%} +- {error:.2%}, z = {z:.1f}; {best['eval_fixed']} fixed, {best['eval_broken']} broken)"
    gate = {"requests": requests, "p_truth_before": before, "p_truth": best["eval_p_truth"], "z": z, "needed": needed}
    gate |= {"change": change, "error": error, "fixed": best["eval_fixed"], "broken": best["eval_broken"]}
    if z < needed:
        kept = f"no checkpoint was better than the student before (z of {needed:.0f} is needed): {why}"
        return {**chosen(0, kept, BY), "gate": gate}
    return {**chosen(best["step"], why, BY), "gate": gate}


def chosen(step: int, why: str, by: str) -> dict[str, Any]:
    """Say what run_config.json says of the choice."""
    return {"checkpoint": f"checkpoint-{step}", "why": why, "chosen_by": by, "sft_was_better": step == 0}
