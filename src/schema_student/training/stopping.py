"""Decide by validations which checkpoint is the best, and when training stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ANSWERS = "answers"  # --sft-checkpoint: by answers; any other value: by loss
Score = tuple[float, ...]  # of a validation: the greater the better, compared part by part


def score_validation(metrics: Mapping[str, Any], by: str) -> Score:
    """Score a validation by its loss, or by answers: as asked, then valid, and of equal ones by loss.

    >>> score_validation({"eval_loss": 0.5, "eval_as_asked": 0.75, "eval_valid": 1.0}, "answers")
    (0.75, 1.0, -0.5)
    """
    by_answers = (metrics["eval_as_asked"], metrics["eval_valid"]) if by == ANSWERS else ()
    return (*by_answers, -metrics["eval_loss"])


def count_since_best(scores: Sequence[Score]) -> int:
    """Count the validations after the first of the best ones.

    >>> count_since_best([(-3.0,), (-1.0,), (-2.0,), (-1.0,)])
    2
    """
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def explain_stop(scores: Sequence[Score], patience: int) -> str:
    """Say why training stops after these validations; "" where it goes on. A patience of 0 never stops."""
    since = count_since_best(scores)
    if not patience or since < patience:
        return ""
    best = max(scores)
    said = f"loss {-best[-1]:.4f}" + (f", {best[0]:.1%} as asked" if len(best) > 1 else "")
    return f"{since} validations in a row were no better than the best so far ({said})"
