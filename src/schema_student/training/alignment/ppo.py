"""Raise the reward of the student's own samples by proximal policy optimization (PPO), with a value head.

Each draw gives answers to a batch of prompts from the current weights, whose likelihoods, values and advantages are
kept; ppo_epochs optimizer steps learn from them, and the clipped ratio bounds how far they go. The reward of a whole
answer (its grade, or a reward model's score) stands at its last token; each token pays for leaving the student that the
alignment began with. As Ziegler et al. 2019 (arXiv 1909.08593) and Ouyang et al. 2022 (arXiv 2203.02155) do it.

The value head is a linear map of the policy's own hidden states, scaled to length 1, so that a step of AdamW moves a
value by the learning rate times sqrt(D) at most. It begins at 0, its loss does not reach the policy, whose gradient is
the smaller one; it is kept in the checkpoints, and is no part of the aligned adapter.

Shapes: B answers, C columns of completion, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from schema_student.core.processes import process_count
from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.student.generation import find_stop_ids, generate
from schema_student.student.loading import Student
from schema_student.student.reward_model import RewardModel, load_reward_model
from schema_student.training.alignment.objective import Alignment
from schema_student.training.alignment.policy_gradient import PolicyGradient
from schema_student.training.batches import Batch, Row, inference_mode
from schema_student.training.checks import require_finite
from schema_student.training.distributed import gather
from schema_student.training.loop import Step
from schema_student.training.optimization import Schedule
from schema_student.training.rl.groups import Group, Prompt, describe_group, draw_groups, grade_group, summarize_groups
from schema_student.training.rl.losses import clipped_losses, kl_terms
from schema_student.training.rl.ppo import explained_variance, gae, normalize, token_rewards, value_losses

CUT_OFF = 1.0  # taken off a reward model's score of an answer that did not end


@dataclass
class Experience:
    """Some answers of a draw, and what was known of their tokens when they were drawn; each (B, C) but the batch."""

    batch: Batch
    logps_BC: torch.Tensor
    values_BC: torch.Tensor
    kl_BC: torch.Tensor  # terms of KL to the reference
    returns_BC: torch.Tensor
    advantages_BC: torch.Tensor

    @property
    def mask_BC(self) -> torch.Tensor:
        """Return 1 at tokens, 0 where padded."""
        mask: torch.Tensor = self.batch["completion_mask"]
        return mask


class PPO(PolicyGradient):
    """The objective of PPO, over rows {prompt, name, key}."""

    def find_rows(self, alignment: Alignment) -> list[Row]:
        """Take prompts of other origin as they are; of requests those that teach something."""
        return list(alignment.rows) if self.settings.data.data_set else super().find_rows(alignment)

    def __init__(self, alignment: Alignment) -> None:
        super().__init__(alignment)
        self.own = self.settings.ppo
        model = self.batches.student.model
        model.value_head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1).to(model.device)
        torch.nn.init.zeros_(model.value_head.weight)
        torch.nn.init.zeros_(model.value_head.bias)
        self.reward = load_reward(self.settings)
        self.experience: list[list[Experience]] = []  # of each micro-batch of this draw
        self.drawn: dict[str, float] = {}  # metrics of this draw
        self.guard = Guard(self.own.ppo_kl_limit, self.own.ppo_entropy_share)

    @property
    def keeps_reference(self) -> bool:
        """Always: the guard needs the distance too."""
        return True

    @classmethod
    def plan(cls, settings: ResolvedSettings) -> Schedule:
        """Plan its steps, ppo_epochs of them a draw; each validation is a checkpoint too."""
        own, epochs = settings.rl, settings.ppo.ppo_epochs
        every, rows = own.rl_eval_every * epochs, (own.rl_batch_size, own.rl_gradient_accumulation)
        return Schedule(own.rl_max_steps * epochs, own.rl_learning_rate, *rows, every, every, epochs)

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Draw answers at the first step of a draw; then yield the loss of each micro-batch."""
        draw, epoch = divmod(step.number - 1, self.own.ppo_epochs)
        if epoch == 0:
            self._draw(draw, batches)
        tokens = sum(gather([sum(float(part.mask_BC.sum()) for parts in self.experience for part in parts)]))
        sums: list[list[float]] = []
        for parts in self.experience:
            yield self._batch_loss(parts, tokens / process_count(), sums)
        policy, value, clipped = (sum(column) / tokens for column in zip(*gather(sums), strict=True))
        found = {"policy_loss": policy, "value_loss": value, "clip_fraction": clipped}
        self.metrics = {**self.drawn, **found}

    # -----------------------------------------------------------------------------------------------------------------
    # Drawing

    def _draw(self, draw: int, batches: Sequence[Batch]) -> None:
        """Draw and score the answers of a step, and keep what is known of their tokens."""
        student, prompts = self.batches.student, [prompt for batch in batches for prompt in batch["prompts"]]
        groups = score_groups(self.reward, student, prompts, draw_groups(student, prompts, self.settings, draw))
        names = [name for batch in batches for name in batch["names"]]
        require_finite("reward", [group.values for group in groups], draw * self.own.ppo_epochs + 1, names)
        waiting = iter(groups)
        self.experience = [self._look([next(waiting) for _ in batch["prompts"]]) for batch in batches]
        described = gather([describe_group(*pair) for pair in zip(groups, prompts, strict=True)])
        self.drawn = summarize_groups(described) | self._describe_and_normalize()
        self.guard.update(self.drawn["kl"], self.drawn["entropy"])

    def _look(self, groups: Sequence[Group]) -> list[Experience]:
        """Compute what is known of a micro-batch's answers, in parts that fit into batch_tokens."""
        answers = [ids for group in groups for ids in group.answers]
        scores = [value for group in groups for value in group.values]
        limits = len(answers), self.batches.batch_tokens, self.batches.trees
        cut = batching.cut_batches([[ids] for ids in answers], range(len(answers)), *limits)
        return [self._look_at([answers[i] for i in part], torch.tensor([scores[i] for i in part])) for part in cut]

    def _look_at(self, answers: Sequence[batching.Ids], scores_B: torch.Tensor) -> Experience:
        batch = self.batches.collate(answers, scores=scores_B)
        mask_BC = batch["completion_mask"]
        reference_logps_BC = self.reference_logps(batch)
        with inference_mode(self.batches.student.model):
            logps_BC, values_BC = self._read(batch)
        rewards = batch["scores"], logps_BC, reference_logps_BC, mask_BC
        rewards_BC = token_rewards(*rewards, self.own.ppo_kl_weight)
        advantages_BC = gae(rewards_BC, values_BC, mask_BC, self.own.ppo_lambda)
        kl_BC = kl_terms(logps_BC, reference_logps_BC) * mask_BC
        return Experience(batch, logps_BC, values_BC, kl_BC, advantages_BC + values_BC, advantages_BC)

    def _read(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute log p and value of each token (B, C), 0 where padded."""
        logps_BC, hidden_BCD = self.batches.completion_states(batch)
        states_BCD = torch.nn.functional.normalize(hidden_BCD.detach().float(), dim=-1)
        values_BC = self.batches.student.model.value_head(states_BCD)[..., 0]
        return logps_BC, values_BC * batch["completion_mask"]

    def _describe_and_normalize(self) -> dict[str, float]:
        """Compute the metrics of a draw over all processes, and normalize its advantages by all tokens."""
        parts = [part for parts in self.experience for part in parts]
        tokens = [row for part in parts for row in _columns(part)]
        logps, values, kl, returns, advantages = torch.tensor(gather(tokens), dtype=torch.float64).T
        mean, deviation = float(advantages.mean()), float(advantages.std(correction=0))
        for part in parts:
            part.advantages_BC = normalize(part.advantages_BC, part.mask_BC, mean, deviation)
        answers = sum(gather([sum(len(part.mask_BC) for part in parts)]))
        return {
            "kl": float(kl.sum()) / answers,
            "entropy": -float(logps.mean()),
            "explained_variance": explained_variance(values, returns),
        }

    # -----------------------------------------------------------------------------------------------------------------
    # Learning

    def _batch_loss(self, parts: Sequence[Experience], tokens: float, sums: list[list[float]]) -> torch.Tensor:
        """Compute the loss of a micro-batch; all parts but the last have their backward pass here."""
        done = torch.zeros((), device=parts[0].mask_BC.device)
        for part in parts[:-1]:
            loss = self._part_loss(part, tokens, sums)
            loss.backward()
            done += loss.detach()
        return done + self._part_loss(parts[-1], tokens, sums)

    def _part_loss(self, part: Experience, tokens: float, sums: list[list[float]]) -> torch.Tensor:
        """Compute the clipped losses of some answers over the tokens of the step; their sums are added to `sums`."""
        logps_BC, values_BC = self._read(part.batch)
        log_ratios_BC, mask_BC = (logps_BC - part.logps_BC) * part.mask_BC, part.mask_BC
        policy = (clipped_losses(log_ratios_BC, part.advantages_BC, self.own.ppo_clip) * mask_BC).sum()
        value = (value_losses(values_BC, part.values_BC, part.returns_BC, self.own.ppo_value_clip) * mask_BC).sum()
        clipped = (log_ratios_BC.detach().exp() - 1).abs() > self.own.ppo_clip
        sums.append([float(policy.detach()), float(value.detach()), float(clipped.sum())])
        return (policy + value) / tokens  # of parameters of their own

    # -----------------------------------------------------------------------------------------------------------------
    # State

    def stop_reason(self) -> str:
        """Say that right answers became less likely, or what the guard says."""
        return super().stop_reason() or self.guard.reason

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it: the value head too."""
        head = self.batches.student.model.value_head
        values = {"weight": head.weight[0].tolist(), "bias": head.bias.tolist()}
        return {**super().state_dict(), "value_head": values, "guard": vars(self.guard)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        super().load_state_dict(state)
        head = self.batches.student.model.value_head
        with torch.no_grad():
            head.weight.copy_(torch.tensor([state["value_head"]["weight"]]))
            head.bias.copy_(torch.tensor(state["value_head"]["bias"]))
        self.guard = Guard(**state["guard"])


@dataclass
class Guard:
    """Says when PPO should stop: too far from the student before, or with answers that hardly vary any more."""

    kl_limit: float  # nats an answer
    entropy_share: float  # of the first draw's entropy
    first_entropy: float | None = None
    reason: str = ""

    def update(self, kl: float, entropy: float) -> None:
        """Take note of a draw."""
        if self.first_entropy is None:
            self.first_entropy = entropy
        least = self.entropy_share * self.first_entropy
        if kl > self.kl_limit:
            self.reason = f"KL to the student before is {kl:.2f} nats an answer, above --ppo-kl-limit {self.kl_limit:g}"
        elif entropy < least:
            self.reason = f"entropy fell to {entropy:.4f} nats a token, below {least:.4f} (--ppo-entropy-share)"


def load_reward(settings: ResolvedSettings) -> RewardModel | None:
    """Load the reward model that the settings name; None where grades are the rewards."""
    name = settings.ppo.ppo_reward_model
    return load_reward_model(name) if name else None


def score_groups(
    reward: RewardModel | None, student: Student, prompts: Sequence[Prompt], groups: Sequence[Group]
) -> list[Group]:
    """Put a reward model's scores in place of the grades, where there is one."""
    if reward is None:
        return list(groups)
    stop_ids = find_stop_ids(student)
    asked = [(prompt.text, text) for prompt, group in zip(prompts, groups, strict=True) for text in group.texts]
    scores = iter(reward.score([text for text, _ in asked], [answer for _, answer in asked]))
    return [
        _rescore(group, [next(scores) - CUT_OFF * is_cut(ids, stop_ids) for ids in group.answers]) for group in groups
    ]


def score_greedy_answers(
    reward: RewardModel | None, student: Student, prompts: Sequence[Prompt], settings: ResolvedSettings
) -> list[float]:
    """Score the greedy answer to each prompt as samples are."""
    texts = [prompt.text for prompt in prompts]
    made = generate(student, texts, settings.generation.max_new_tokens, settings.decoding.eval_batch_size)
    groups = [grade_group(prompt, answers, settings) for prompt, answers in zip(prompts, made, strict=True)]
    return [group.values[0] for group in score_groups(reward, student, prompts, groups)]


def _rescore(group: Group, scores: Sequence[float]) -> Group:
    """The group with these rewards; what is known of validity stays."""
    rewards = [replace(reward, value=score) for reward, score in zip(group.rewards, scores, strict=True)]
    return replace(group, rewards=rewards)


def is_cut(ids: batching.Ids, stop_ids: frozenset[int]) -> bool:
    """Whether an answer was cut off before its end."""
    return ids.completion_ids[-1] not in stop_ids


def _columns(part: Experience) -> list[list[float]]:
    """Log p, value, KL term, return and advantage of each token."""
    kept = part.mask_BC.bool()
    found = part.logps_BC, part.values_BC, part.kl_BC, part.returns_BC, part.advantages_BC
    columns: list[list[float]] = torch.stack([each[kept] for each in found]).double().T.tolist()
    return columns
