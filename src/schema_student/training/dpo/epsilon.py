"""Compute epsilon-DPO's s of each pair: whether its log-ratio is monotone where the policy's logits are moved.

Shapes: B pairs, C columns of completion, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from schema_student.student import batching
from schema_student.training.batches import Batch, Batches
from schema_student.training.dpo.beta import perturbation_sign
from schema_student.training.dpo.losses import dpo_margins
from schema_student.training.sharding import trained_weights


def perturbed_logps(policy_CV: Any, reference_CV: Any, ids_C: Any, mask_C: Any, epsilon: float) -> list[float]:
    """Compute log p of a completion with the policy's logits epsilon toward the reference, as they are, and away.

    In float64: near the reference, float32 would round the move away.
    """
    policy = policy_CV.double()
    move = epsilon * (policy - reference_CV.double())
    logps = (torch.log_softmax(policy + side * move, -1).gather(1, ids_C[:, None])[:, 0] for side in (-1, 0, 1))
    return [float((logps_C * mask_C).sum()) for logps_C in logps]


class PairSigns:
    """Margins and signs of batches, by a model whose reference is itself with the adapter that it had at the start."""

    def __init__(self, batches: Batches, epsilon: float) -> None:
        self.batches = batches
        self.epsilon = epsilon
        self.at_start = [weight.detach().clone() for weight in trained_weights(batches.student.model)]

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Use the model with the adapter that it began with, for passes without gradient."""
        weights = trained_weights(self.batches.student.model)
        trained = [weight.data for weight in weights]
        try:
            for weight, before in zip(weights, self.at_start, strict=True):
                weight.data = before
            yield
        finally:
            for weight, now in zip(weights, trained, strict=True):
                weight.data = now

    def margins_and_signs(self, batch: Batch) -> tuple[torch.Tensor, list[int]]:
        """Compute margins (B,), and s of each pair."""
        model, autocast = self.batches.student.model, self.batches.autocast
        with torch.autocast(model.device.type, autocast) if autocast else nullcontext():
            policy = batching.completion_logits(model, batch)
            with self.as_reference():
                reference = batching.completion_logits(model, batch)
        credit = batch.get("credit", batch["completion_mask"][: 2 * len(batch["names"])])
        rows = zip(policy, reference, batch["completion_ids"], credit, strict=False)  # without anchors
        found = [perturbed_logps(*row, self.epsilon) for row in rows]
        chosen, rejected = torch.tensor(found, dtype=torch.float64, device=policy.device).chunk(2)
        signs = [perturbation_sign(*ratios) for ratios in (chosen - rejected).tolist()]
        return dpo_margins(chosen[:, 1], rejected[:, 1], *batch["reference_logps"].chunk(2)), signs
