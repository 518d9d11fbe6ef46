"""Name each objective but DPO: the groups of its settings, by which of them processes share a step, and its class.

Classes are loaded when they are asked for, as they need torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schema_student.training.alignment.objective import AlignmentObjective


@dataclass(frozen=True)
class Recipe:
    """How a link is trained.

    `groups` of settings decide it beside those of every link; `step` names its settings of accumulation and of rows, by
    the first of which that can be divided processes share a step.
    """

    groups: tuple[str, ...]
    step: tuple[str, str]
    load: Callable[[], type[AlignmentObjective]]


def _expected_reward() -> type[AlignmentObjective]:
    from schema_student.training.alignment.expected_reward import ExpectedReward

    return ExpectedReward


RECIPES = {
    "expected_reward": Recipe(
        ("expected_reward",), ("expected_reward_batch_size", "expected_reward_batch_size"), _expected_reward
    ),
}
