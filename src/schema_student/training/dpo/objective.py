"""Define the objective of DPO: the margins of a step, then beta, then the losses of its pairs.

Shapes: B pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.training.alignment.objective import switch_off_dropout
from schema_student.training.alignment.validation import Validation
from schema_student.training.batches import Batch, Batches, Row, inference_mode
from schema_student.training.distributed import gather, gather_micro_batches
from schema_student.training.dpo.beta import make_controller
from schema_student.training.dpo.encoding import collate_pairs, credited_logps, pair_length, pair_sequences
from schema_student.training.dpo.epsilon import PairSigns
from schema_student.training.dpo.feeding import ControllerFeed, Share
from schema_student.training.dpo.losses import dpo_losses, dpo_margins, positive_margins, sft_losses
from schema_student.training.dpo.metrics import MARGINS, TRACE, ChosenFallAlarm, step_metrics
from schema_student.training.loop import Step


class DPO:
    """The objective of DPO over rows {chosen, rejected, name, key, split, reference}; beta is decided once a step."""

    rows_per_key = 4
    logs: Sequence[str] = (MARGINS, TRACE)

    def __init__(
        self, batches: Batches, pairs: Sequence[Row], validation: Validation, run_dir: Path, settings: ResolvedSettings
    ) -> None:
        pairs = sorted(pairs, key=lambda row: (row["key"], pair_length(row)))
        self.rows: Sequence[Row] = [row for row in pairs if row["split"] == "train"]
        self.held_out = [row for row in pairs if row["split"] != "train"]
        self.batches, self.validation, self.settings = batches, validation, settings
        self.controller = make_controller(settings)
        self.feed = ControllerFeed(self.controller, run_dir, batches.student.model.device)
        self.alarm = ChosenFallAlarm(settings.dpo.dpo_chosen_fall)
        self.signs = PairSigns(batches, settings.beta.beta_epsilon) if self.controller.wants_signs else None
        self.beta = settings.beta.beta
        self.logps: list[torch.Tensor] = []  # of the last step's micro-batches (4, B)
        switch_off_dropout(batches.student.model)

    def sequences(self, row: Row) -> list[batching.Ids]:
        """Return the chosen and the rejected sequence of a pair."""
        return pair_sequences(row)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Collate a batch: chosen sequences first, then rejected ones, 2 B rows."""
        return collate_pairs(rows, self.batches)

    def loss_denominator(self, batch: Batch) -> int:
        """Count the pairs."""
        return len(batch["names"])

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Compute the margins of the whole step, then beta; then yield the loss of each micro-batch.

        With several micro-batches their margins are needed before the first loss: one more forward pass of each. With
        signs to find: one of the policy and one of the reference. With a beta that no margin moves: none.
        """
        names = [batch["names"] for batch in batches]
        margins: list[torch.Tensor] = []
        self.logps = []
        shares = self.feed.undecided(len(batches))
        ahead = self.controller.wants_signs or (self.controller.wants_margins and len(batches) > 1)
        if ahead:
            self.beta, shares = self.feed.decide(step, *self.look_ahead(batches), names)
        for batch in batches:
            of_batch, logps_4B, logps_BC = self.margins_of(batch)
            margins.append(of_batch.detach())
            if not ahead and len(margins) == len(batches):
                self.beta, shares = self.feed.decide(step, margins, (), names)
            share = shares[len(self.logps)]
            loss = self.pair_losses(batch, of_batch, logps_4B, logps_BC, share).sum() / step.denominator
            self.logps.append(logps_4B.detach())
            yield loss

    def margins_of(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute margins (B,), policy and reference log p of chosen and rejected (4, B), and log p of all tokens."""
        logps_BC = self.batches.completion_logps(batch)
        logps_4B = torch.cat([credited_logps(logps_BC, batch), batch["reference_logps"]]).reshape(4, -1)
        return dpo_margins(*logps_4B), logps_4B, logps_BC

    def look_ahead(self, batches: Sequence[Batch]) -> tuple[list[torch.Tensor], list[list[int]]]:
        """Compute the margins of a step's micro-batches, and their pairs' signs where the controller wants them."""
        with inference_mode(self.batches.student.model):
            if self.signs is None:
                return [self.margins_of(batch)[0] for batch in batches], []
            margins, signs = zip(*map(self.signs.margins_and_signs, batches), strict=True)
            return list(margins), list(signs)

    def pair_losses(
        self, batch: Batch, margins: torch.Tensor, logps_4B: torch.Tensor, logps_BC: torch.Tensor, share: Share
    ) -> torch.Tensor:
        """Compute the weighted loss of each pair (B,), with the terms that keep right answers likely."""
        betas, weights = share
        settings, (policy_chosen_logps, _, reference_chosen_logps, _) = self.settings.dpo, logps_4B
        if settings.dpo_positive_weight:
            chosen = policy_chosen_logps, reference_chosen_logps
            margins = positive_margins(margins, *chosen, settings.dpo_positive_weight)
        losses = dpo_losses(margins, betas)
        if settings.dpo_sft_weight:
            losses = losses + settings.dpo_sft_weight * self.right_losses(batch, logps_BC)
        return weights * losses

    def right_losses(self, batch: Batch, logps_BC: torch.Tensor) -> torch.Tensor:
        """Compute the SFT loss of each pair's chosen answer, and the mean of those of its anchors, added (B,)."""
        B = len(batch["names"])
        losses = sft_losses(logps_BC.sum(-1), batch["completion_mask"].sum(-1))
        anchors = losses[2 * B :]
        return losses[:B] + anchors.reshape(B, -1).mean(-1) if len(anchors) else losses[:B]

    def step_metrics(self, step: Step) -> dict[str, float]:
        """Compute rewards, log-probabilities and beta of the step, and an alarm where chosen answers fall."""
        pairs = [
            pair for batch in gather_micro_batches([part.double().T.tolist() for part in self.logps]) for pair in batch
        ]
        logps_4B = torch.tensor(pairs, dtype=torch.float64).T
        return step_metrics(logps_4B, self.beta, self.controller.trace) | self.alarm.update(logps_4B, step.number)

    def validate(self) -> dict[str, Any]:
        """Validate by reading right answers and on held-out pairs at beta_0; the controller is not fed."""
        metrics = self.validation.read()
        if self.held_out:
            parts = self.batches.own_batches(self.held_out, list(map(pair_sequences, self.held_out)))
            margins = torch.tensor(
                gather([m for rows in parts for m in self.margins_of(self.collate(rows))[0].tolist()])
            )
            metrics["eval_pairs"] = len(self.held_out)
            metrics["eval_loss"] = float(dpo_losses(margins, self.settings.beta.beta).mean())
            metrics["eval_margin"] = float(margins.mean())
            metrics["eval_rewards/accuracies"] = float((margins > 0).double().mean())
        return metrics

    def stop_reason(self) -> str:
        """Say that the likelihood of right answers has fallen beyond its error; "" where it has not."""
        return self.validation.fallen

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's state, and what the guards count."""
        kept = {"fallen": self.alarm.fallen, "validation": self.validation.state_dict()}
        return {**self.feed.state_dict(), **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.feed.load_state_dict(state)
        self.alarm.fallen = state["fallen"]
        self.validation.load_state_dict(state["validation"])
