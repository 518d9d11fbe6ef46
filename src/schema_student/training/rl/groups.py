"""Draw the answers of a step: a group for each prompt, from the current weights, each answer with its reward.

Samples are drawn at temperature 1, from the distribution whose log-probabilities the loss has. They depend on the
run's seed, the step and the prompt alone, so that a run that was stopped draws again what an undisturbed one draws.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schema_student.core.settings import ResolvedSettings
from schema_student.schema.rendering import completion_text
from schema_student.student.batching import Ids
from schema_student.student.generated import Generation
from schema_student.student.generation import generate
from schema_student.student.loading import Student
from schema_student.student.tokens import encode_completion
from schema_student.training.rl.rewards import Reward, RewardScale, Task, reward_text

STEPS = 2**20  # more than a run has: no step of one seed draws what a step of another draws


@dataclass(frozen=True)
class Prompt:
    """A request to sample answers to: its prompt, also as token ids, and what decides their rewards."""

    text: str
    ids: list[int]
    task: Task


@dataclass(frozen=True)
class Group:
    """Answers to one prompt, as ids and as texts, with their rewards."""

    answers: list[Ids]
    texts: list[str]
    rewards: list[Reward]

    @property
    def values(self) -> list[float]:
        """Return the rewards as numbers."""
        return [reward.value for reward in self.rewards]

    @property
    def varies(self) -> bool:
        """Whether rewards differ: only then has the group a gradient."""
        return len(set(self.values)) > 1


def scale_of(settings: ResolvedSettings) -> RewardScale:
    """Return the scale of rewards that the settings name."""
    return RewardScale(settings.rl.rl_reward_valid, settings.rl.rl_reward_parts)


def draw_groups(student: Student, prompts: Sequence[Prompt], settings: ResolvedSettings, step: int) -> list[Group]:
    """Draw rl_samples answers to each prompt, and grade them."""
    drawn = generate(
        student,
        [prompt.text for prompt in prompts],
        settings.generation.max_new_tokens,
        settings.decoding.eval_batch_size,
        temperature=1.0,
        samples=settings.draws.rl_samples,
        seed=settings.run.seed * STEPS + step,
    )
    return [grade_group(*pair, settings) for pair in zip(prompts, drawn, strict=True)]


def grade_group(prompt: Prompt, answers: Sequence[Generation], settings: ResolvedSettings) -> Group:
    """Reward each answer to a prompt by its grade."""
    scale, strip = scale_of(settings), settings.verdict.strip_fences
    return Group(
        [Ids(prompt.ids, list(answer.ids)) for answer in answers],
        [answer.text for answer in answers],
        [reward_text(answer.text, answer.finished, prompt.task, scale, strip) for answer in answers],
    )


def with_teacher(group: Group, prompt: Prompt, student: Student) -> Group:
    """Put the known right answer into its group, with the reward of one; the group as it is where none is known."""
    if prompt.task.target is None:
        return group
    text = completion_text(prompt.task.target)
    ids = Ids(prompt.ids, encode_completion(student.tokenizer, text))
    return Group([*group.answers, ids], [*group.texts, text], [*group.rewards, Reward(1.0, True, True, True)])


# ---------------------------------------------------------------------------------------------------------------------
# Metrics


def describe_group(group: Group, prompt: Prompt) -> dict[str, Any]:
    """Return what metrics need of a group, as processes exchange it."""
    rewards = group.rewards
    return {
        "values": group.values,
        "valid": [reward.valid for reward in rewards],
        "right": [reward.right for reward in rewards] if prompt.task.is_known else [],
        "tokens": [len(ids.completion_ids) for ids in group.answers],
    }


def summarize_groups(described: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Compute the metrics of a step's samples.

    reward, reward_std (mean of the groups' deviations), groups_vary (share), valid and right (shares of answers; right
    of those to requests with a known answer), answer_tokens.
    """
    metrics = {name: _mean([x for each in described for x in each[name]]) for name in ("values", "valid", "tokens")}
    known = [right for each in described for right in each["right"]]
    varied = [max(each["values"]) > min(each["values"]) for each in described]
    return {
        "reward": metrics["values"],
        "reward_std": _mean([statistics.pstdev(each["values"]) for each in described]),
        "groups_vary": _mean(varied),
        "valid": metrics["valid"],
        "answer_tokens": metrics["tokens"],
        **({"right": _mean(known)} if known else {}),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
