"""Compute the formulas of a reward model. Shapes: B pairs."""

from __future__ import annotations

from typing import Any

import torch


def ranking_losses(chosen_scores: Any, rejected_scores: Any, margins: Any) -> Any:
    """Compute -log sigmoid(r(chosen) - r(rejected) - margin), (B,).

    The likelihood of the preferences by Bradley and Terry; the margin asks for a greater difference where one answer is
    much better (equation 2 of Touvron et al. 2023, arXiv 2307.09288).
    """
    return -torch.nn.functional.logsigmoid(chosen_scores - rejected_scores - margins)


def centering_losses(chosen_scores: Any, rejected_scores: Any) -> Any:
    """Compute (r(chosen) + r(rejected))^2, which keeps scores about 0 (Eisenstein et al. 2023, arXiv 2312.09244); (B,).

    Preferences alone leave open what is added to all scores of a prompt.
    """
    return (chosen_scores + rejected_scores) ** 2
