"""The formulas of PPO: numbers computed by hand, and gradients by finite differences."""

from __future__ import annotations

import pytest
import torch

from schema_student.training.rl.losses import clipped_losses
from schema_student.training.rl.ppo import explained_variance, gae, normalize, token_rewards, value_losses

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def test_the_score_stands_at_the_last_token_and_each_token_pays_for_leaving_the_reference():
    logps, reference = torch.tensor([[-1.0, -2.0, -0.5], [-0.1, 9.0, 9.0]]), torch.full((2, 3), -1.0)
    rewards = token_rewards(torch.tensor([1.0, 0.5]), logps, reference, MASK, 0.1)
    assert torch.allclose(rewards, torch.tensor([[0.0, 0.1, 0.95], [0.5 - 0.09, 0.0, 0.0]]), atol=1e-6)


def test_advantages_by_hand():
    rewards = torch.tensor([[0.0, 0.1, 1.0], [0.5, 0.0, 0.0]])
    values = torch.tensor([[0.2, 0.4, 0.6], [0.3, 7.0, 7.0]])
    found = gae(rewards, values, MASK, decay=0.9)
    # deltas: 0 + 0.4 - 0.2, 0.1 + 0.6 - 0.4, 1 - 0.6; what stands behind an answer counts nowhere
    last, middle = 0.4, 0.3 + 0.9 * 0.4
    assert torch.allclose(found, torch.tensor([[0.2 + 0.9 * middle, middle, last], [0.2, 0.0, 0.0]]), atol=1e-6)


def test_with_decay_1_advantage_is_what_came_less_what_was_expected_and_with_0_one_step_is_seen():
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    whole = (rewards * MASK).flip(-1).cumsum(-1).flip(-1)
    assert torch.allclose(gae(rewards, values, MASK, decay=1.0), (whole - values) * MASK, atol=1e-12)
    following = torch.cat([(values * MASK)[:, 1:], torch.zeros(2, 1)], -1)
    assert torch.allclose(gae(rewards, values, MASK, decay=0.0), (rewards + following - values) * MASK, atol=1e-12)


def test_normalized_advantages_are_nothing_behind_an_answer():
    found = normalize(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]]), mean=2.0, deviation=1.0)
    assert torch.allclose(found, torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [(1.5, 2.0, -2.4, False), (0.5, 2.0, -1.0, True), (1.5, -2.0, 3.0, True), (0.5, -2.0, 1.6, False)],
)
def test_the_ratio_is_clipped_only_where_that_makes_the_objective_smaller(ratio, advantage, loss, moves):
    log_ratio = torch.tensor(ratio).log().requires_grad_()
    found = clipped_losses(log_ratio, torch.tensor(advantage), 0.2)
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-5) and (log_ratio.grad.item() != 0) is moves


@pytest.mark.parametrize(
    ("value", "old", "target", "loss"),
    [(0.1, 0.0, 1.0, 0.405), (0.9, 0.0, 1.0, 0.32), (-0.9, 0.0, 1.0, 1.805), (0.5, 0.5, 0.5, 0.0)],
)
def test_the_value_loss_by_hand(value, old, target, loss):
    found = value_losses(*(torch.tensor([each]) for each in (value, old, target)), clip=0.2)
    assert found.tolist() == pytest.approx([loss], abs=1e-5)


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(1)
    log_ratios, advantages, old, returns = (torch.randn(4, generator=generator, dtype=torch.float64) for _ in range(4))
    assert torch.autograd.gradcheck(lambda x: clipped_losses(x, advantages, 0.2), (log_ratios.requires_grad_(),))
    values = (old + 0.1 * returns).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: value_losses(v, old, returns, 0.2), (values,))


def test_explained_variance_is_0_for_a_constant_and_negative_for_worse_than_one():
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert explained_variance(torch.ones(3), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(torch.tensor([1.0, 2.0]), torch.ones(2)) == 0.0
