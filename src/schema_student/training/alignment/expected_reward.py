"""Raise the expected reward exactly: where a verdict is the reward, it is the likelihood of the right answers.

With reward 1 for a right answer and 0 for any other, E[reward] = P(truth), the sum of the likelihoods of the right
answers: nothing has to be sampled. Its gradient is the policy gradient (Williams 1992, REINFORCE), of which samples
give a noisy estimate; a request weighs by how likely it is answered right already, so that confident failures, on
which cross-entropy pushes hardest, move nothing.

Shapes: A right answers of B requests, C tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from schema_student.core.settings import ResolvedSettings
from schema_student.training.alignment.objective import AlignmentObjective
from schema_student.training.batches import Batch
from schema_student.training.distributed import gather
from schema_student.training.loop import Step
from schema_student.training.optimization import Schedule


def expected_reward_losses(logps_A: torch.Tensor) -> torch.Tensor:
    """Compute - sg(exp(s)) s of each right answer, s = log p of all of it, sg without gradient.

    Its gradient is that of - exp(s), also in numbers where exp(s) underflows.

    >>> s = torch.tensor([-0.5, -2.0], requires_grad=True)
    >>> expected_reward_losses(s).sum().backward()
    >>> torch.allclose(s.grad, -s.detach().exp())
    True
    """
    return -logps_A.detach().exp() * logps_A


class ExpectedReward(AlignmentObjective):
    """The objective of the expected reward over all right answers to each request."""

    @classmethod
    def plan(cls, settings: ResolvedSettings) -> Schedule:
        """Plan its steps; each validation is a checkpoint too."""
        own = settings.expected_reward
        every = own.expected_reward_eval_every
        rate, rows = own.expected_reward_learning_rate, own.expected_reward_batch_size
        return Schedule(own.expected_reward_max_steps, rate, rows, 1, every, every)

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Yield the loss of each micro-batch; `p_truth` of the step's requests is logged."""
        p_truth = []
        for batch in batches:
            logps_A = self.batches.completion_logps(batch).sum(-1)
            p_truth += [float(part.sum()) for part in logps_A.detach().exp().split(batch["counts"])]
            yield expected_reward_losses(logps_A).sum() / step.denominator
        found = gather(p_truth)
        self.metrics = {"p_truth": sum(found) / len(found)}
