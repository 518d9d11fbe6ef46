"""Write a run's log: a row a step or validation to training_metrics.jsonl, to the tracker, and now and then a line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from schema_student.core.jsonl import append_row
from schema_student.core.log import log, log_event
from schema_student.core.processes import is_first_process
from schema_student.core.settings import ResolvedSettings
from schema_student.training.trackers import log_to_tracker, start_tracker

METRICS = "training_metrics.jsonl"
EVERY = 10  # steps between two lines for people
SHOWN = (
    *("loss", "eval_loss", "p_truth", "eval_p_truth", "eval_accuracy", "learning_rate"),
    *("rewards/accuracies", "beta/effective", "accuracy", "eval_valid", "eval_as_asked"),
)


class MetricsLog:
    """The log of one run, written by its first process alone."""

    def __init__(self, run_dir: Path, settings: ResolvedSettings, steps: int, first_step: int) -> None:
        self.path = run_dir / METRICS
        self.steps = steps
        self.first_step = first_step
        self.started = time.monotonic()
        self.writes = is_first_process()
        self.tracker = start_tracker(run_dir, settings) if self.writes else None

    def start_clock(self) -> None:
        """Count the seconds of a step from here."""
        self.started = time.monotonic()

    def write(self, row: dict[str, Any]) -> None:
        """Add a row of a step or of a validation."""
        if not self.writes:
            return
        append_row(self.path, row)
        if "loss" not in row or row["step"] % EVERY == 0 or row["step"] == self.steps:
            log.info(self._line(row))
        self._tell(row)
        if self.tracker:
            log_to_tracker(self.tracker, row)

    def _tell(self, row: dict[str, Any]) -> None:
        """Log an event with the row's numbers, for who watches the run."""
        done, left = row["step"] - self.first_step, self._seconds_left(row["step"])
        facts = {"done": row["step"], "total": self.steps, "unit": "step", "seconds_left": left}
        rate = done / max(time.monotonic() - self.started, 1e-9)
        figures = {name: value for name, value in row.items() if isinstance(value, int | float)}
        log_event("progress", f"step {row['step']}", what="training", per_second=rate, figures=figures, **facts)

    def _seconds_left(self, step: int) -> float:
        done = step - self.first_step
        return (time.monotonic() - self.started) / done * (self.steps - step) if done else 0

    def _line(self, row: dict[str, Any]) -> str:
        values = "  ".join(f"{key} {row[key]:.4g}" for key in SHOWN if key in row)
        left = self._seconds_left(row["step"])
        return f"  step {row['step']}/{self.steps}  {values}" + (f"  {left:.0f} s left" if left else "")

    def close(self) -> None:
        """Let the tracker finish."""
        if self.tracker:
            self.tracker.finish()
