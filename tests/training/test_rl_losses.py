"""Policy gradients: losses and gradients are trl's, advantages and KL those of the formulas."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny
import torch

from schema_student.schema.compiling import compile_schema
from schema_student.student import batching
from schema_student.training.rl.advantages import group_normalized, leave_one_out, vary
from schema_student.training.rl.losses import grpo_losses, kl_terms, rloo_losses
from schema_student.training.rl.rewards import RewardScale, Task, reward_text

COMPLETIONS = ['{"n":1}', '{"a longer":"answer"}', '{"n":22}']
ADVANTAGES = torch.tensor([0.75, -1.25, 0.9])


def test_leave_one_out_subtracts_the_mean_of_the_others():
    rewards = torch.tensor([[1.0, 0.0, 0.3, 0.3], [1.0, 1.0, 1.0, 1.0]])
    expected = [1 - 0.2, 0 - 1.6 / 3, 0.3 - 1.3 / 3, 0.3 - 1.3 / 3]
    assert leave_one_out(rewards)[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert leave_one_out(rewards)[1].tolist() == [0, 0, 0, 0]
    assert vary(rewards).tolist() == [True, False]


def test_group_normalized_divides_by_the_groups_own_deviation_or_not_at_all():
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.5], [3.0, 1.0, 1.0, 1.0]])
    deviation = math.sqrt((0.25 + 0.25) / 3)
    assert group_normalized(rewards)[0].tolist() == pytest.approx(
        [0.5 / (deviation + 1e-4)] * 1 + [-0.5 / (deviation + 1e-4), 0, 0], abs=1e-6
    )
    assert group_normalized(rewards)[1].tolist() == pytest.approx([1.5 / 1.0001, *[-0.5 / 1.0001] * 3], abs=1e-5)
    assert group_normalized(rewards, by_deviation=False)[1].tolist() == [1.5, -0.5, -0.5, -0.5]


def test_kl_is_never_negative_and_in_the_mean_the_exact_one():
    policy, reference = (
        torch.randn(5, generator=torch.Generator().manual_seed(seed)).log_softmax(-1) for seed in (0, 1)
    )
    exact = float((policy.exp() * (policy - reference)).sum())
    assert float((policy.exp() * kl_terms(policy, reference)).sum()) == pytest.approx(exact, rel=1e-5)
    assert bool((kl_terms(policy, reference) >= 0).all()) and kl_terms(policy, policy).tolist() == [0] * 5


def trl_loss(module: str, model, sequences, advantages, tokenizer, old=None, reference=None, **options):
    """The loss of trl's trainer for these answers: its own method, with as much of a trainer as it reads."""
    import importlib
    from collections import defaultdict

    kind = {"rloo": "RLOOTrainer", "grpo": "GRPOTrainer"}[module]
    trainer_class = getattr(importlib.import_module(f"trl.trainer.{module}_trainer"), kind)
    batch = batching.collate(sequences, tokenizer.pad_token_id)
    P = batch["input_ids"].shape[1] - batch["completion_ids"].shape[1]
    inputs = {
        "prompt_ids": batch["input_ids"][:, :P],
        "prompt_mask": batch["attention_mask"][:, :P],
        "completion_ids": batch["completion_ids"],
        "completion_mask": batch["completion_mask"],
        "advantages": advantages,
    }
    if old is not None:
        inputs["old_logps" if module == "rloo" else "old_per_token_logps"] = old
    if reference is not None:
        inputs["ref_per_token_logps"] = reference
    given = {
        "model": model,
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False, report_to=[]),
        "accelerator": SimpleNamespace(
            is_main_process=True,
            reduce=lambda value, reduction: value,
            gather=lambda value: value,
            gather_for_metrics=lambda value: value,
            unwrap_model=lambda model: model,
        ),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "aux_loss_enabled": False,
        "is_fsdp_enabled": False,
        "temperature": 1.0,
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "loss_type": "grpo",
        "use_vllm": False,
        "use_liger_kernel": False,
        "_entropy_bonus_enabled": False,
        "use_adaptive_entropy": False,
        "max_completion_length": 40,
        "current_gradient_accumulation_steps": 1,
        "model_kwarg_keys": {"logits_to_keep"},
        **options,
    }
    trainer = trainer_class.__new__(trainer_class)
    trainer.__dict__.update(given)
    return trainer._compute_loss(model, inputs)


def compute(model, sequences, tokenizer, trees):
    batch = batching.collate(sequences, tokenizer.pad_token_id, trees)
    return batching.completion_logps(model, batch), batch["completion_mask"]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("objective", ["rloo", "grpo", "grpo with kl", "dr_grpo"])
@pytest.mark.parametrize("moved", [False, True], ids=["on policy", "after an update"])
def test_losses_and_gradients_are_trls(objective, moved):
    policy, sampler, reference, tokenizer = *map(tiny.tiny_model, (0, 0, 2)), tiny.tiny_tokenizer()
    if moved:  # so that some ratios are clipped
        for weight, noise in zip(sampler.parameters(), tiny.tiny_model(1).parameters(), strict=True):
            weight.data.add_(0.1 * noise.data)
    sequences = [batching.encode(tokenizer, "number 1", text) for text in COMPLETIONS]
    with torch.no_grad():
        old, (reference_logps, _) = (
            compute(sampler, sequences, tokenizer, False)[0],
            compute(reference, sequences, tokenizer, False),
        )
    logps, mask = compute(policy, sequences, tokenizer, True)
    if objective == "rloo":
        ours = rloo_losses(logps, old, ADVANTAGES, 0.2).mean()
        theirs = trl_loss("rloo", policy, sequences, ADVANTAGES, tokenizer, old.sum(-1))
    else:
        beta, length = (0.3 if "kl" in objective else 0.0), (40 if objective == "dr_grpo" else 0)
        ours = grpo_losses(logps, old, mask, ADVANTAGES, 0.2, length).mean()
        if beta:
            kl = (kl_terms(logps, reference_logps) * mask).sum(-1) / mask.sum(-1)
            ours = ours + beta * kl.mean()
        options = {"beta": beta, "loss_type": "dr_grpo" if length else "grpo"}
        theirs = trl_loss("grpo", policy, sequences, ADVANTAGES, tokenizer, old, reference_logps, **options)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5, abs=1e-5)
    own, expected = gradients(policy, ours), gradients(policy, theirs)
    for name, gradient in own.items():
        assert float((gradient - expected[name]).norm() / expected[name].norm()) <= 1e-5, name


TASK = Task(
    compile_schema({"type": "object", "properties": {"n": {"type": "integer"}, "unit": {"type": "string"}}}),
    {"n": 2, "unit": "km"},
)
SCALE = RewardScale(valid=0.1, parts=0.4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"unit": "km", "n": 2}', (1.0, True, True)),
        ('{"n": 3, "unit": "km"}', (0.3, True, False)),
        ('{"n": 3, "unit": "m"}', (0.1, True, False)),
        ('{"n": "2", "unit": "km"}', (0.0, False, False)),
        ('{"n": 2', (0.0, False, False)),
    ],
)
def test_an_answer_is_rewarded_by_what_of_it_is_right_once_it_is_valid(text, expected):
    reward = reward_text(text, True, TASK, SCALE)
    assert (pytest.approx(reward.value), reward.valid, reward.right) == expected


def test_an_answer_that_was_cut_off_has_no_reward_though_its_text_is_right():
    assert reward_text('{"n": 2, "unit": "km"}', False, TASK, SCALE).value == 0
    assert reward_text('```json\n{"n": 2, "unit": "km"}\n```', True, TASK, SCALE).value == 0  # nor one in fences


def test_without_a_known_answer_validity_is_all():
    unknown = Task(TASK.schema)
    assert [reward_text(text, True, unknown, SCALE).value for text in ('{"n": 7}', '{"n": "7"}')] == [1.0, 0.0]
    accepted = Task(TASK.schema, None, {"n": [2, 3]})
    known = [reward_text(text, True, accepted, SCALE) for text in ('{"n": 3}', '{"n": 4}')]
    assert [(reward.value, reward.best) for reward in known] == [(1.0, True), (0.1, False)]
    assert [reward_text(text, True, unknown, SCALE).best for text in ('{"n": 7}', '{"n": "7"}')] == [True, False]
