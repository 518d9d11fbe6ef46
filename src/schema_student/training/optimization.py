"""Plan how long and how fast a stage trains: steps, AdamW, and a learning rate that rises and falls."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from schema_student.core.settings import ResolvedSettings


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train, in optimizer steps."""

    steps: int
    learning_rate: float
    batch_size: int
    accumulation: int  # micro-batches of a process in a step
    eval_every: int
    save_every: int
    steps_per_batch: int = 1  # optimizer steps in a row that take the same micro-batches

    def validates_after(self, step: int) -> bool:
        """Return whether the step is followed by a validation."""
        return step == self.steps or step % self.eval_every == 0

    def saves_after(self, step: int) -> bool:
        """Return whether the step is followed by a checkpoint: after every validation too."""
        return self.validates_after(step) or step % self.save_every == 0


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: ResolvedSettings, learning_rate: float
) -> torch.optim.Optimizer:
    """Make a fused AdamW with weight decay on matrices alone, neither on biases nor on norms."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.optimizer.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)


def make_scheduler(optimizer: torch.optim.Optimizer, settings: ResolvedSettings, steps: int) -> LambdaLR:
    """Make the schedule: linear warm-up over warmup_ratio of the steps, then the decay that lr_scheduler names."""
    own = settings.optimizer
    warmup = math.ceil(own.warmup_ratio * steps)
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, warmup, steps, own.lr_scheduler, own.lr_floor))


def learning_rate_factor(step: int, warmup: int, steps: int, shape: str = "linear", floor: float = 0.0) -> float:
    """Compute the share of the learning rate that is used in the step after `step` steps.

    As transformers' schedules do: linear, cosine (Loshchilov and Hutter 2017, arXiv 1608.03983), constant; `floor` is
    the share that a decay ends at.

    >>> learning_rate_factor(55, 10, 100), learning_rate_factor(55, 10, 100, "cosine", floor=0.1)
    (0.5, 0.55)
    """
    if step < warmup:
        return step / warmup
    left = max(0, steps - step) / max(1, steps - warmup)
    decay = {"linear": left, "cosine": (1 + math.cos(math.pi * (1 - left))) / 2, "constant": 1.0}[shape]
    return floor + (1 - floor) * decay
