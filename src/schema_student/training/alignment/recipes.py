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
    the first of which that can be divided processes share a step; `files` names the settings that name further files,
    `models` those that name the folder (or hub id) of a model.
    """

    groups: tuple[str, ...]
    step: tuple[str, str]
    load: Callable[[], type[AlignmentObjective]]
    files: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def _expected_reward() -> type[AlignmentObjective]:
    from schema_student.training.alignment.expected_reward import ExpectedReward

    return ExpectedReward


def _rloo() -> type[AlignmentObjective]:
    from schema_student.training.alignment.policy_gradient import RLOO

    return RLOO


def _grpo() -> type[AlignmentObjective]:
    from schema_student.training.alignment.policy_gradient import GRPO

    return GRPO


def _ppo() -> type[AlignmentObjective]:
    from schema_student.training.alignment.ppo import PPO

    return PPO


def _rft() -> type[AlignmentObjective]:
    from schema_student.training.alignment.chosen_rows import RFT

    return RFT


def _hard_sft() -> type[AlignmentObjective]:
    from schema_student.training.alignment.chosen_rows import HardSFT

    return HardSFT


DRAWN = ("verdict", "draws")  # groups of settings that decide samples and their grades
RL_STEP = ("rl_gradient_accumulation", "rl_batch_size")
FURTHER_STEP = ("further_sft_batch_size", "further_sft_batch_size")

RECIPES = {
    "expected_reward": Recipe(
        ("expected_reward",), ("expected_reward_batch_size", "expected_reward_batch_size"), _expected_reward
    ),
    "rloo": Recipe((*DRAWN, "rl"), RL_STEP, _rloo, ("requests",)),
    "grpo": Recipe((*DRAWN, "rl", "grpo"), RL_STEP, _grpo, ("requests",)),
    "ppo": Recipe((*DRAWN, "rl", "ppo"), RL_STEP, _ppo, ("requests",), ("ppo_reward_model",)),
    "rft": Recipe((*DRAWN, "further_sft"), FURTHER_STEP, _rft, ("requests",)),
    "hard_sft": Recipe(("further_sft", "hard"), FURTHER_STEP, _hard_sft, ("requests",)),
}
