"""Hold what the objectives of alignment share: their requests, validation by reading, and the guard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.training.alignment.validation import Validation
from schema_student.training.batches import Batch, Batches, Row
from schema_student.training.loop import Step
from schema_student.training.optimization import Schedule


@dataclass(frozen=True)
class Alignment:
    """What an objective is made of: `settings` are this process's share, `rows` those of requests.encode_requests."""

    settings: ResolvedSettings
    batches: Batches
    rows: Sequence[Row]
    validation: Validation
    run_dir: Path


class AlignmentObjective:
    """An objective over the right answers to requests; one that derives from it says `plan` and `losses`.

    Its rows are {answers, name, key, request}; a batch has all right answers of its requests, and `counts`, how many
    each request has.
    """

    rows_per_key = 4
    logs: Sequence[str] = ()

    def __init__(self, alignment: Alignment) -> None:
        self.settings, self.batches = alignment.settings, alignment.batches
        self.rows, self.validation = alignment.rows, alignment.validation
        self.metrics: dict[str, float] = {}  # of the last step
        switch_off_dropout(self.batches.student.model)

    @classmethod
    def plan(cls, settings: ResolvedSettings) -> Schedule:
        """Plan the steps by the objective's settings."""
        raise NotImplementedError

    def sequences(self, row: Row) -> list[batching.Ids]:
        """Return the right answers to a request."""
        answers: list[batching.Ids] = row["answers"]
        return answers

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Collate a batch of requests with their right answers."""
        sequences = [ids for row in rows for ids in self.sequences(row)]
        counts = [len(self.sequences(row)) for row in rows]
        return self.batches.collate(sequences, names=[row["name"] for row in rows], counts=counts)

    def loss_denominator(self, batch: Batch) -> int:
        """Count the requests."""
        return len(batch["names"])

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Yield the loss of each micro-batch."""
        raise NotImplementedError

    def step_metrics(self, step: Step) -> dict[str, float]:
        """Return what `losses` has left in `metrics`."""
        return self.metrics

    def validate(self) -> dict[str, Any]:
        """Read the right answers to the validation requests."""
        return self.validation.read()

    def stop_reason(self) -> str:
        """Say that the likelihood of right answers has fallen beyond its error; "" where it has not."""
        return self.validation.fallen

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"validation": self.validation.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.validation.load_state_dict(state["validation"])


def switch_off_dropout(model: Any) -> None:
    """Drop nothing out: what is compared with the student at the start would be compared with noise."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
