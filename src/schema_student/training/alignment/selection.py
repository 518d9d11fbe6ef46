"""Choose an alignment's checkpoint by reading, and keep the student before it where that one is not better.

Tests never choose. Of the checkpoints whose valid answers did not become fewer by more than FEWER standard errors that
of the greatest P(truth) is taken; it replaces the student that the alignment began with where the paired change is
CLEAR standard errors above 0, of fewer than ENOUGH requests VERY_CLEAR.
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
FEWER = 1.5  # standard errors by which the share of valid answers may fall; to be better, P(truth) alone is not enough
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
    whole = [row for row in rows if not _writes_fewer_valid(row)]
    best = max(whole or rows, key=lambda row: row["eval_p_truth"])
    gate = _measure_gate(best)
    why = (
        f"P(truth) of {gate['requests']} validation requests {gate['p_truth_before']:.1%} -> {gate['p_truth']:.1%} "
        f"({gate['change']:+.2%} +- {gate['error']:.2%}, z = {gate['z']:.1f}; {gate['fixed']} fixed, "
        f"{gate['broken']} broken; valid {gate['valid_before']:.1%} -> {gate['valid']:.1%})"
    )
    if not whole or gate["z"] < gate["needed"]:
        fault = f"z of {gate['needed']:.0f} is needed" if whole else "fewer answers are valid"
        return {**chosen(0, f"no checkpoint was better than the student before ({fault}): {why}", BY), "gate": gate}
    return {**chosen(best["step"], why, BY), "gate": gate}


def _writes_fewer_valid(row: Row) -> bool:
    return z_of(row["eval_valid_change"], row["eval_valid_error"]) < -FEWER


def _measure_gate(row: Row) -> Row:
    """The numbers of a validation that decide."""
    requests, change, error = row["eval_requests"], row["eval_p_truth_change"], row["eval_p_truth_error"]
    return {
        "requests": requests,
        "p_truth_before": row["eval_p_truth"] - change,
        "p_truth": row["eval_p_truth"],
        "change": change,
        "error": error,
        "z": z_of(change, error),
        "needed": CLEAR if requests >= ENOUGH else VERY_CLEAR,
        "fixed": row["eval_fixed"],
        "broken": row["eval_broken"],
        "valid_before": row["eval_valid"] - row["eval_valid_change"],
        "valid": row["eval_valid"],
    }


def chosen(step: int, why: str, by: str) -> dict[str, Any]:
    """Say what run_config.json says of the choice."""
    return {"checkpoint": f"checkpoint-{step}", "why": why, "chosen_by": by, "sft_was_better": step == 0}
