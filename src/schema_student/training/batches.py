"""Turn a stage's rows into batches on the model's device, and read them without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device

from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.student.loading import Student
from schema_student.training.distributed import own_share
from schema_student.training.sharding import apply_to_model

Row = dict[str, Any]
Batch = dict[str, Any]


@dataclass(frozen=True)
class Batches:
    """What decides a stage's batches: their limits, trees or padding, the device, and autocast's type.

    `batch_size` rows of at most `batch_tokens` tokens share a batch; in training and validation alike.
    """

    student: Student
    batch_size: int
    batch_tokens: int
    trees: bool
    autocast: torch.dtype | None

    @classmethod
    def of(cls, student: Student, settings: ResolvedSettings, batch_size: int, trees: bool) -> Batches:
        """Make the batches of a stage with these settings."""
        autocast = batching.autocast_dtype(settings, student.model.device)
        return cls(student, batch_size, settings.batching.batch_tokens, trees, autocast)

    def collate(self, sequences: Sequence[batching.Ids], **more: Any) -> Batch:
        """Collate one batch of these sequences, with what else the stage keeps beside them, on the model's device."""
        batch = batching.collate(sequences, self.student.tokenizer.pad_token_id, self.trees)
        moved: Batch = send_to_device({**batch, **more}, self.student.model.device)
        return moved

    def completion_logps(self, batch: Batch) -> torch.Tensor:
        """Compute log p of each completion token (B, C), 0 where padded."""
        return apply_to_model(batching.completion_logps, self.student.model, batch, self.autocast)

    def completion_states(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute completion_logps (B, C), and the hidden state before each completion token (B, C, D)."""
        return apply_to_model(batching.completion_states, self.student.model, batch, self.autocast)

    def own_batches(self, rows: Sequence[Row], sequences: Sequence[Sequence[batching.Ids]]) -> list[list[Row]]:
        """Cut this process's share of the rows, in their order, into batches that keep to the limits."""
        cut = batching.cut_batches(sequences, range(len(rows)), self.batch_size, self.batch_tokens, self.trees)
        return own_share([[rows[i] for i in batch] for batch in cut])


@contextmanager
def inference_mode(model: Any) -> Iterator[None]:
    """Put a model into inference mode: no dropout, no gradient; afterwards it is in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
