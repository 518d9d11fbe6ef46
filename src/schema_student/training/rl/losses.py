"""Compute the losses of policy gradients over sampled answers, and their distance from the reference.

Shapes: B answers, C columns of completion.
"""

from __future__ import annotations

import torch


def clipped_losses(log_ratios: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """Compute -min(r A, clip(r, 1 - clip, 1 + clip) A), r = exp(log_ratios) of policy to sampler, of any one shape.

    The clipped surrogate of PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7). Where the policy is the sampler,
    r = 1 and the gradient is that of REINFORCE: -A grad log p.
    """
    ratios = log_ratios.exp()
    return -torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)


def rloo_losses(
    logps_BC: torch.Tensor, old_logps_BC: torch.Tensor, advantages_B: torch.Tensor, clip: float
) -> torch.Tensor:
    """Compute the loss of each answer (B,): one ratio for a whole answer, the action of REINFORCE leave-one-out.

    Ahmadian et al. 2024, arXiv 2402.14740; `advantages.leave_one_out`.
    """
    return clipped_losses((logps_BC - old_logps_BC).sum(-1), advantages_B, clip)


def grpo_losses(
    logps_BC: torch.Tensor,
    old_logps_BC: torch.Tensor,
    mask_BC: torch.Tensor,
    advantages_B: torch.Tensor,
    clip: float,
    length: int,
) -> torch.Tensor:
    """Compute the loss of each answer (B,): a ratio for each token, the mean over the answer's tokens.

    Shao et al. 2024, arXiv 2402.03300, eq. 3; `advantages.group_normalized`. With a `length` (tokens) the sum is
    divided by that for all answers, lest tokens of long wrong answers count less: Dr. GRPO, arXiv 2503.20783.
    """
    losses_BC = clipped_losses(logps_BC - old_logps_BC, advantages_B[:, None], clip) * mask_BC
    return losses_BC.sum(-1) / (length or mask_BC.sum(-1).clamp(min=1))


def kl_terms(logps: torch.Tensor, reference_logps: torch.Tensor) -> torch.Tensor:
    """Estimate KL(policy || reference) in nats from tokens that the policy drew, of any one shape.

    The estimator k3 (Schulman 2020, "Approximating KL divergence"): exp(d) - d - 1, d = log p_reference - log p. It is
    unbiased, and never negative.
    """
    difference = reference_logps - logps
    return difference.exp() - difference - 1
