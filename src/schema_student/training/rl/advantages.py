"""Compute advantages: how much more an answer is worth than the others to the same prompt.

Shapes: P prompts, K answers to each.
"""

from __future__ import annotations

import torch

EPSILON = 1e-4  # added to a standard deviation that divides, as trl does


def leave_one_out(rewards_PK: torch.Tensor) -> torch.Tensor:
    """Subtract from each reward the mean of the group's other rewards (Ahmadian et al. 2024, arXiv 2402.14740, eq. 8).

    >>> leave_one_out(torch.tensor([[1.0, 0.0, 0.5]])).tolist()
    [[0.75, -0.75, 0.0]]
    """
    others = rewards_PK.shape[1] - 1
    return rewards_PK - (rewards_PK.sum(1, keepdim=True) - rewards_PK) / others


def group_normalized(rewards_PK: torch.Tensor, by_deviation: bool = True) -> torch.Tensor:
    """Subtract the group's mean reward, and divide by its standard deviation (Shao et al. 2024, arXiv 2402.03300, 4.1).

    Without the division as in Dr. GRPO (Liu et al. 2025, arXiv 2503.20783): it weighs a prompt more where nearly all
    of its answers are alike.

    >>> group_normalized(torch.tensor([[1.0, 0.0, 0.5]]), by_deviation=False).tolist()
    [[0.5, -0.5, 0.0]]
    """
    centred_PK = rewards_PK - rewards_PK.mean(1, keepdim=True)
    return centred_PK / (rewards_PK.std(1, keepdim=True) + EPSILON) if by_deviation else centred_PK


def vary(rewards_PK: torch.Tensor) -> torch.Tensor:
    """Find the prompts (P,) whose answers differ in reward: only these have a gradient."""
    return rewards_PK.amax(1) > rewards_PK.amin(1)
