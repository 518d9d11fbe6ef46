"""Compute the formulas of DPO: margins, losses, and two terms that keep the chosen answers likely.

Shapes: B pairs.
"""

from __future__ import annotations

from typing import Any

import torch


def dpo_margins(
    policy_chosen_logps: Any, policy_rejected_logps: Any, reference_chosen_logps: Any, reference_rejected_logps: Any
) -> Any:
    """Compute M = (log pi - log ref)(chosen) - (log pi - log ref)(rejected), summed over completion tokens; (B,)."""
    return (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)


def dpo_losses(margins: Any, beta: Any) -> Any:
    """Compute -log sigmoid(beta M), equation 7 of Rafailov et al. 2023, arXiv 2305.18290; (B,).

    beta (one, or one a pair) carries no gradient.
    """
    return -torch.nn.functional.logsigmoid(beta * margins)


def positive_margins(margins: Any, policy_chosen_logps: Any, reference_chosen_logps: Any, weight: float) -> Any:
    """Take a penalty off M where the chosen answer has become less likely: DPO-positive; (B,).

    M - lambda max(0, log ref(chosen) - log pi(chosen)), Pal et al. 2024, arXiv 2402.13228; weight is their lambda.
    """
    return margins - weight * (reference_chosen_logps - policy_chosen_logps).clamp(min=0)


def sft_losses(policy_chosen_logps: Any, chosen_tokens: Any) -> Any:
    """Compute -log pi(chosen) a token, added to DPO's loss with a weight (Pang et al. 2024, arXiv 2404.19733); (B,)."""
    return -policy_chosen_logps / chosen_tokens
