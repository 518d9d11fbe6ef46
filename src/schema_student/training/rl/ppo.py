"""Compute the formulas of PPO over sampled answers: rewards of tokens, advantages, losses of policy and value.

Shapes: B answers, C columns of completion; a mask is 1 at an answer's tokens, which stand first, and 0 behind them.
"""

from __future__ import annotations

from typing import Any

import torch


def token_rewards(
    scores_B: torch.Tensor, logps_BC: torch.Tensor, reference_logps_BC: torch.Tensor, mask_BC: Any, kl_weight: float
) -> torch.Tensor:
    """Compute the reward of each token (B, C): a penalty for leaving the reference, and at the last the answer's score.

    - kl_weight (log p - log p_reference) of the token that was drawn (Ziegler et al. 2019, arXiv 1909.08593, eq. 2).
    """
    rewards_BC = -kl_weight * (logps_BC - reference_logps_BC) * mask_BC
    last_B1 = mask_BC.sum(-1, keepdim=True).long() - 1
    return rewards_BC.scatter_add(-1, last_B1, scores_B[:, None])


def gae(rewards_BC: torch.Tensor, values_BC: torch.Tensor, mask_BC: Any, decay: float) -> torch.Tensor:
    """Estimate how much better than expected each token was (B, C), undiscounted; 0 behind an answer.

    A_t = sum over l of decay^l (r_{t+l} + V_{t+l+1} - V_{t+l}), V = 0 at the end (Schulman et al. 2015, arXiv
    1506.02438, eq. 16, with gamma 1). `decay` (their lambda) 1: what came of it, less what was expected.

    >>> gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), torch.ones(1, 2), decay=0.5).tolist()
    [[0.125, 0.75]]
    """
    advantages, last_B = [], torch.zeros_like(rewards_BC[:, 0])
    next_values_BC = torch.cat([values_BC[:, 1:] * mask_BC[:, 1:], torch.zeros_like(values_BC[:, :1])], dim=-1)
    deltas_BC = (rewards_BC + next_values_BC - values_BC) * mask_BC
    for delta_B in reversed(deltas_BC.unbind(-1)):
        last_B = delta_B + decay * last_B
        advantages.append(last_B)
    return torch.stack(advantages[::-1], dim=-1) * mask_BC


def normalize(advantages_BC: torch.Tensor, mask_BC: Any, mean: float, deviation: float) -> torch.Tensor:
    """Subtract the mean of all tokens' advantages and divide by their standard deviation; 0 behind an answer."""
    return (advantages_BC - mean) / (deviation + 1e-8) * mask_BC


def value_losses(values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """Compute half the squared error of values, the greater of that and of values moved by no more than `clip`.

    As in the implementation of Schulman et al. 2017 (openai/baselines, ppo2); of any one shape.

    >>> round(float(value_losses(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0), clip=0.2)), 6)
    0.32
    """
    moved = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum((values - returns) ** 2, (moved - returns) ** 2) / 2


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """Compute the share of the returns' variance that values explain: 1 - Var(returns - values) / Var(returns).

    >>> explained_variance(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    1.0
    """
    variance = float(returns.var(correction=0))
    return 1 - float((returns - values).var(correction=0)) / variance if variance else 0.0
