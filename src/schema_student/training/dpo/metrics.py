"""Log a step of DPO: margins.jsonl with its .npy, beta_trace.jsonl, trl's metrics, and an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schema_student.core.files import make_folder, open_to_write
from schema_student.core.jsonl import Row, append_row
from schema_student.core.log import log
from schema_student.core.processes import is_first_process
from schema_student.core.records import MarginRow
from schema_student.training.dpo.beta import quantile
from schema_student.training.dpo.losses import dpo_margins
from schema_student.training.loop import Step

MARGINS, TRACE = "margins.jsonl", "beta_trace.jsonl"
SHOWN = 8  # margins of a step that margins.jsonl shows (all of them are in the .npy)
TRACED = ("p_hat", "tau", "u", "s")  # of a controller's trace, logged as risk/...


def describe_margins(margins: Sequence[float]) -> dict[str, Any]:
    """Compute the statistics of margins.jsonl; the deviation is the population's."""
    n = len(margins)
    mean = sum(margins) / n
    found = {"n": n, "mean": mean, "std": (sum((m - mean) ** 2 for m in margins) / n) ** 0.5, "min": min(margins)}
    found |= {name: quantile(margins, q) for name, q in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))}
    return {**found, "max": max(margins), "pos_frac": sum(m > 0 for m in margins) / n}


def log_margins(
    run_dir: Path, step: Step, margins: Sequence[float], signs: Sequence[int], trace: Sequence[Row]
) -> None:
    """Write a step's margins and what the controller traced of it."""
    import numpy as np

    path = run_dir / "margins" / f"step_{step.number:06d}.npy"
    make_folder(path.parent)
    with open_to_write(path, "wb") as file:
        np.save(file, np.array(margins))
    row = MarginRow(
        step=step.number,
        epoch=step.epoch,
        **describe_margins(margins),
        npy=str(path.relative_to(run_dir)),
        sample=list(margins[:SHOWN]),
        signs=list(signs) or None,
    )
    append_row(run_dir / MARGINS, row.as_json())
    for traced in trace:
        append_row(run_dir / TRACE, traced)


def step_metrics(logps_4B: torch.Tensor, beta: float, trace: Sequence[Row]) -> dict[str, float]:
    """Compute the metrics of a step under trl's names; risk/* from the controller's trace, where it has one.

    `logps_4B` are policy chosen and rejected, reference chosen and rejected, of the pairs of all processes.
    """
    chosen, rejected, reference_chosen, reference_rejected = logps_4B
    rewards = beta * (chosen - reference_chosen), beta * (rejected - reference_rejected)
    margins = rewards[0] - rewards[1]
    found = {"rewards/chosen": rewards[0], "rewards/rejected": rewards[1], "rewards/margins": margins}
    found |= {"rewards/accuracies": (margins > 0).double(), "logps/chosen": chosen, "logps/rejected": rejected}
    found["margin"] = dpo_margins(chosen, rejected, reference_chosen, reference_rejected)
    traced = {f"risk/{name}": trace[-1].get(name) for name in TRACED} if trace else {}
    return {
        **{name: float(values.mean()) for name, values in found.items()},
        "beta/effective": beta,
        **{name: value for name, value in traced.items() if value is not None},
    }


class ChosenFallAlarm:
    """Says where chosen answers have become less likely than they were: DPO widens margins that way too."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.fallen = False

    def update(self, logps_4B: torch.Tensor, step: int) -> dict[str, float]:
        """Return the alarm's metric while it lasts; it is logged once, where it begins."""
        chosen, _, reference_chosen, _ = logps_4B
        fall = float((reference_chosen - chosen).mean())
        was, self.fallen = self.fallen, fall > self.threshold
        if self.fallen and not was and is_first_process():
            log.info(
                f"  ALARM: at step {step} chosen answers are on average {fall:.1f} nats less likely "
                "than at the start, so the student unlearns what it should prefer. Raise --beta, lower "
                "--dpo-learning-rate, or add --dpo-sft-weight or --dpo-positive-weight"
            )
        return {"alarm/chosen_fall": fall} if self.fallen else {}
