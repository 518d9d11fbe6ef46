"""Raise the reward of the student's own samples by a policy gradient: RLOO and GRPO.

Each step draws a group of answers to every prompt from the current weights, grades them, and raises the likelihood of
those that are better than the others of their group. Unlike expected_reward it needs no right answer: the schema's
verdict is a reward by itself, so that requests that nobody answered (--requests) are learned from too. A step's samples
are used once, as Ahmadian et al. and Shao et al. do: the ratio of policy to sampler is 1, and nothing is clipped.

Shapes: B answers, C tokens of an answer, K answers of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.student.full_weights import VALUE_HEAD
from schema_student.training.alignment.objective import Alignment, AlignmentObjective
from schema_student.training.alignment.sampled import select_prompts
from schema_student.training.batches import Batch, Row, inference_mode
from schema_student.training.distributed import gather
from schema_student.training.loop import Step
from schema_student.training.optimization import Schedule
from schema_student.training.rl.advantages import group_normalized, leave_one_out
from schema_student.training.rl.groups import Group, describe_group, draw_groups, summarize_groups, with_teacher
from schema_student.training.rl.losses import grpo_losses, kl_terms, rloo_losses
from schema_student.training.sharding import apply_to_model, trained_weights

CLIP = 0.2  # of the ratio, as in trl


def _sum_of_nothing(model: torch.nn.Module) -> torch.Tensor:
    """Make a loss of 0 that all trained weights have a gradient of."""
    return torch.stack([weight.sum() for weight in trained_weights(model)]).sum() * 0.0


class PolicyGradient(AlignmentObjective):
    """The objective of graded samples, over rows {prompt, name, key}.

    One that derives from it says how rewards become advantages, and the loss of an answer.
    """

    rows_per_key = 1

    def __init__(self, alignment: Alignment) -> None:
        super().__init__(alignment)
        self.rows = self.find_rows(alignment)
        kept = self.weights if self.keeps_reference else []
        self.reference = [weight.detach().clone() for weight in kept]
        self.kl: list[float] = []  # of each answer of the step, nats

    def find_rows(self, alignment: Alignment) -> list[Row]:
        """Select the prompts to draw answers to."""
        return select_prompts(alignment)

    @property
    def weights(self) -> list[torch.nn.Parameter]:
        """The weights that are trained but for a value head, as the model has them now: FSDP puts others there."""
        named = self.batches.student.model.named_parameters()
        return [weight for name, weight in named if weight.requires_grad and not name.startswith(VALUE_HEAD)]

    @property
    def keeps_reference(self) -> bool:
        """Return whether the weights of the start are kept beside the current ones."""
        return self.settings.rl.rl_kl_weight > 0

    @classmethod
    def plan(cls, settings: ResolvedSettings) -> Schedule:
        """Plan its steps; each validation is a checkpoint too."""
        own, every = settings.rl, settings.rl.rl_eval_every
        rows = own.rl_batch_size, own.rl_gradient_accumulation
        return Schedule(own.rl_max_steps, own.rl_learning_rate, *rows, every, every)

    def advantages(self, rewards_1K: torch.Tensor) -> torch.Tensor:
        """Compute the advantages of a group."""
        raise NotImplementedError

    def answer_losses(self, logps_BC: torch.Tensor, mask_BC: torch.Tensor, advantages_B: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each answer (B,)."""
        raise NotImplementedError

    def sequences(self, row: Row) -> list[batching.Ids]:
        """Return the prompt: its answers are not known when batches are planned."""
        return [batching.Ids(row["prompt"].ids, [self.batches.student.tokenizer.eos_token_id])]

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Name the prompts of a batch."""
        return {"names": [row["name"] for row in rows], "prompts": [row["prompt"] for row in rows]}

    def loss_denominator(self, batch: Batch) -> int:
        """Count the answers, also of groups whose loss is 0."""
        taught = self.settings.rl.rl_teacher_in_group
        known = sum(prompt.task.target is not None for prompt in batch["prompts"])
        return len(batch["prompts"]) * self.settings.draws.rl_samples + (known if taught else 0)

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Draw the answers of the whole step, then yield the loss of each micro-batch."""
        student, prompts = self.batches.student, [prompt for batch in batches for prompt in batch["prompts"]]
        pairs = list(zip(draw_groups(student, prompts, self.settings, step.number), prompts, strict=True))
        described = gather([describe_group(*pair) for pair in pairs])
        taught = self.settings.rl.rl_teacher_in_group
        waiting = iter([with_teacher(*pair, student) if taught else pair[0] for pair in pairs])
        self.kl = []
        for batch in batches:
            yield self.batch_loss([next(waiting) for _ in batch["prompts"]], step.denominator)
        self.metrics = summarize_groups(described)
        if kl := gather(self.kl):
            self.metrics["kl"] = sum(kl) / len(kl)

    def batch_loss(self, groups: Sequence[Group], denominator: float) -> torch.Tensor:
        """Compute the loss of a micro-batch over the step's denominator.

        Answers that do not fit into batch_tokens are cut into parts, of which all but the last have their backward pass
        here, lest the activations of all be kept: how long answers are is not known when batches are planned.
        """
        answers, advantages = self.score(groups)
        loss = apply_to_model(_sum_of_nothing, self.batches.student.model)  # so a step without answers has one
        parts = batching.cut_batches(
            [[ids] for ids in answers], range(len(answers)), len(answers), self.batches.batch_tokens, self.batches.trees
        )
        for part in parts:
            if part is not parts[0]:
                loss.backward()
                loss = loss.detach()
            chosen = [answers[i] for i in part], torch.tensor([advantages[i] for i in part])
            loss = loss + self.part_loss(*chosen) / denominator
        return loss

    def score(self, groups: Sequence[Group]) -> tuple[list[batching.Ids], list[float]]:
        """Give answers their advantages; groups in which all are 0 are left out, but where KL has a weight."""
        answers: list[batching.Ids] = []
        found: list[float] = []
        for group in groups:
            if group.varies or self.reference:
                answers += group.answers
                found += self.advantages(torch.tensor([group.values]))[0].tolist()
        return answers, found

    def part_loss(self, answers: Sequence[batching.Ids], advantages_B: torch.Tensor) -> torch.Tensor:
        """Compute the sum of some answers' losses, with that of their distance from the reference."""
        batch = self.batches.collate(answers, advantages=advantages_B)
        reference_logps_BC = self.reference_logps(batch) if self.reference else None
        logps_BC, mask_BC = self.batches.completion_logps(batch), batch["completion_mask"]
        losses_B = self.answer_losses(logps_BC, mask_BC, batch["advantages"])
        if reference_logps_BC is not None:
            kl_B = (kl_terms(logps_BC, reference_logps_BC) * mask_BC).sum(-1)
            self.kl += kl_B.tolist()
            losses_B = losses_B + self.settings.rl.rl_kl_weight * kl_B
        return losses_B.sum()

    def reference_logps(self, batch: Batch) -> torch.Tensor:
        """Compute log p of each token (B, C) by the student that this alignment began with."""
        with self.reference_weights(), inference_mode(self.batches.student.model):
            return self.batches.completion_logps(batch)

    @contextmanager
    def reference_weights(self) -> Iterator[None]:
        """Put the weights of the start in place of the current ones for a while."""
        current = [weight.data for weight in self.weights]
        for weight, data in zip(self.weights, self.reference, strict=True):
            weight.data = data
        try:
            yield
        finally:
            for weight, data in zip(self.weights, current, strict=True):
                weight.data = data


class RLOO(PolicyGradient):
    """REINFORCE leave-one-out: a whole answer is one action, and the others of its group are its baseline."""

    def advantages(self, rewards_1K: torch.Tensor) -> torch.Tensor:
        """Compute how much better than the mean of the others each answer is."""
        return leave_one_out(rewards_1K)

    def answer_losses(self, logps_BC: torch.Tensor, mask_BC: torch.Tensor, advantages_B: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each answer (B,)."""
        return rloo_losses(logps_BC, logps_BC.detach(), advantages_B, CLIP)


class GRPO(PolicyGradient):
    """Group relative policy optimization: each token is an action; as published, or as Dr. GRPO has it."""

    @property
    def as_published(self) -> bool:
        """Whether deviation and length divide."""
        return self.settings.grpo.grpo_kind == "grpo"

    def advantages(self, rewards_1K: torch.Tensor) -> torch.Tensor:
        """Compute how much better than the group's mean each answer is."""
        return group_normalized(rewards_1K, by_deviation=self.as_published)

    def answer_losses(self, logps_BC: torch.Tensor, mask_BC: torch.Tensor, advantages_B: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each answer (B,)."""
        length = 0 if self.as_published else self.settings.generation.max_new_tokens
        return grpo_losses(logps_BC, logps_BC.detach(), mask_BC, advantages_B, CLIP, length)
