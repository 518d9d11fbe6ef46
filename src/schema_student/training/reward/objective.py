"""Define the objective of a reward model: scores of chosen and rejected answers, and the losses of their pairs.

Shapes: B pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.student.reward_model import pad_sequences
from schema_student.training.batches import Batch, Batches, Row
from schema_student.training.distributed import gather, gather_micro_batches
from schema_student.training.dpo.encoding import SIDES, pair_length, pair_sequences
from schema_student.training.dpo.objective import switch_off_dropout
from schema_student.training.loop import Step
from schema_student.training.reward.losses import centering_losses, ranking_losses


class Ranking:
    """The objective of a reward model over rows {chosen, rejected, name, key, split, margin}."""

    rows_per_key = 4
    logs: Sequence[str] = ()

    def __init__(self, batches: Batches, pairs: Sequence[Row], settings: ResolvedSettings) -> None:
        self.batches, self.settings = batches, settings.reward
        self.rows: Sequence[Row] = [row for row in pairs if row["split"] == "train"]
        self.held_out = sorted((row for row in pairs if row["split"] != "train"), key=pair_length)
        self.scores: list[torch.Tensor] = []  # of the last step's micro-batches (2, B)
        switch_off_dropout(batches.student.model)

    def sequences(self, row: Row) -> list[batching.Ids]:
        """Return the chosen and the rejected sequence of a pair."""
        return pair_sequences(row)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Collate a batch: chosen sequences first, then rejected ones, padded on the right; 2 B rows."""
        model = self.batches.student.model
        margins = torch.tensor([row["margin"] for row in rows], device=model.device)
        read = pad_sequences([row[side].tokens for side in SIDES for row in rows], model)
        return {"read": read, "margins": margins, "names": [row["name"] for row in rows]}

    def loss_denominator(self, batch: Batch) -> int:
        """Count the pairs."""
        return len(batch["names"])

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Yield the loss of each micro-batch."""
        self.scores = []
        for batch in batches:
            scores_2B = self.score(batch)
            self.scores.append(scores_2B.detach())
            yield self.pair_losses(scores_2B, batch).sum() / step.denominator

    def score(self, batch: Batch) -> torch.Tensor:
        """Compute the scores of chosen and rejected answers (2, B), float32."""
        model, dtype = self.batches.student.model, self.batches.autocast
        with torch.autocast(model.device.type, dtype) if dtype else nullcontext():
            return model(**batch["read"]).logits.float().reshape(2, -1)

    def pair_losses(self, scores_2B: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Compute the loss of each pair (B,)."""
        chosen, rejected = scores_2B
        losses = ranking_losses(chosen, rejected, batch["margins"])
        return losses + self.settings.reward_center * centering_losses(chosen, rejected)

    def step_metrics(self, step: Step) -> dict[str, float]:
        """Compute the share of pairs in order and the scores of the step, under trl's names."""
        pairs = [pair for batch in gather_micro_batches([part.T.tolist() for part in self.scores]) for pair in batch]
        scores_2B = torch.tensor(pairs).T
        found = {"accuracy": in_order(scores_2B), "margin": float((scores_2B[0] - scores_2B[1]).mean())}
        return found | {f"{name}_reward": float(getattr(scores_2B, name)()) for name in ("min", "mean", "max")}

    def validate(self) -> dict[str, Any]:
        """Compute loss, share in order and mean difference of the held-out pairs; equal scores are not in order."""
        if not self.held_out:
            return {}
        scored: list[list[float]] = []
        for rows in self.batches.own_batches(self.held_out, list(map(pair_sequences, self.held_out))):
            batch = self.collate(rows)
            scores_2B = self.score(batch)
            scored += torch.stack([*scores_2B, self.pair_losses(scores_2B, batch)]).T.tolist()
        chosen, rejected, losses = torch.tensor(gather(scored)).T
        scores_2B = torch.stack([chosen, rejected])
        found = {"eval_pairs": len(losses), "eval_loss": float(losses.mean()), "eval_accuracy": in_order(scores_2B)}
        return {**found, "eval_margin": float((chosen - rejected).mean())}

    def stop_reason(self) -> str:
        """Nothing: the checkpoint of the best order is chosen at the end."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Nothing beyond what the loop keeps."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""


def in_order(scores_2B: torch.Tensor) -> float:
    """Compute the share of pairs whose chosen answer has the greater score."""
    return float((scores_2B[0] > scores_2B[1]).double().mean())
