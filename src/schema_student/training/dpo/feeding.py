"""Feed the beta controller: the margins of one optimizer step, over all processes -> each pair's beta and weight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schema_student.core.errors import UserError
from schema_student.core.processes import is_first_process
from schema_student.training.checks import require_finite
from schema_student.training.distributed import gather_micro_batches, own_share
from schema_student.training.dpo.beta import Controller
from schema_student.training.dpo.metrics import log_margins
from schema_student.training.loop import Step

ZERO_STEPS = 3  # steps in a row whose margins are all exactly 0 before the run stops: one may be chance

Share = tuple[Any, Any]  # of the pairs of one micro-batch: beta of each, and its weight in the loss


class ControllerFeed:
    """A controller that is fed once an optimizer step, and what it said last."""

    def __init__(self, controller: Controller, run_dir: Path, device: torch.device) -> None:
        self.controller = controller
        self.run_dir = run_dir
        self.device = device
        self.zero_steps = 0

    def undecided(self, count: int) -> list[Share]:
        """Return the shares of `count` micro-batches where no margin moves beta: its start, and weight 1."""
        return [(self.controller.beta, 1.0)] * count

    def decide(
        self,
        step: Step,
        margins: Sequence[torch.Tensor],
        signs: Sequence[Sequence[int]],
        names: Sequence[Sequence[str]],
    ) -> tuple[float, list[Share]]:
        """Feed the margins of this process's micro-batches; returns the step's beta, and the share of each.

        The controller sees those of all processes in the order of the plan of batches, whichever process computed
        them. The loss is the mean over the pairs that it keeps: it will be divided by the number of all pairs, so a
        kept one weighs more, and others nothing.
        """
        by_batch = gather_micro_batches([part.double().tolist() for part in margins])
        self._check(step, by_batch, names)
        flat = [margin for batch in by_batch for margin in batch]
        flat_signs = [sign for batch in gather_micro_batches([list(part) for part in signs]) for sign in batch]
        decision = self.controller.update(flat, flat_signs)
        weights = torch.zeros(len(flat))
        weights[decision.kept] = len(flat) / len(decision.kept)
        table = torch.stack([torch.tensor(decision.betas), weights]).to(self.device)
        if is_first_process():
            log_margins(self.run_dir, step, flat, flat_signs, self.controller.trace)
        return decision.beta, [tuple(part) for part in own_share(list(table.split(list(map(len, by_batch)), 1)))]

    def _check(self, step: Step, by_batch: Sequence[Sequence[float]], names: Sequence[Sequence[str]]) -> None:
        """Stop on every process at a margin that is not finite, and where no pair has moved for some steps."""
        flat = torch.tensor([margin for batch in by_batch for margin in batch], dtype=torch.float64)
        mine = torch.tensor([margin for batch in own_share(list(by_batch)) for margin in batch], dtype=torch.float64)
        own_names = [name for batch in names for name in batch]
        bad = [name for name, good in zip(own_names, torch.isfinite(mine).tolist(), strict=True) if not good]
        require_finite("margin", flat, step.number, bad)
        moved = step.number == 1 or bool(flat.any())
        self.zero_steps = 0 if moved else self.zero_steps + 1
        if self.zero_steps == ZERO_STEPS:
            raise UserError(
                f"all margins are exactly 0 at step {step.number} and the {ZERO_STEPS - 1} before: the "
                "policy still equals its reference, so nothing is learned. Either no completion token is supervised "
                "(a mask is wrong), the adapter is not trained, or the learning rate is too small for this dtype"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"controller": self.controller.state_dict(), "zero_steps": self.zero_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.controller.load_state_dict(state["controller"])
        self.zero_steps = state["zero_steps"]
