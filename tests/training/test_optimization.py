"""The optimizer and the learning rate are those of transformers.Trainer; a schedule says when to validate and save."""

import math
from functools import partial

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Trainer,
    TrainingArguments,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from schema_student.core.settings import default_settings, resolve_auto
from schema_student.training.optimization import Schedule, make_optimizer, make_scheduler


def settings(**changes):
    return resolve_auto(default_settings(**changes), "embedded")


SCHEDULES = {
    ("linear", 0.0): get_linear_schedule_with_warmup,
    ("cosine", 0.0): get_cosine_schedule_with_warmup,
    ("cosine", 0.1): partial(get_cosine_with_min_lr_schedule_with_warmup, min_lr_rate=0.1),
    ("constant", 0.0): lambda optimizer, warmup, steps: get_constant_schedule_with_warmup(optimizer, warmup),
}


def rates_of(make, steps):
    """The learning rates of a schedule's steps."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2, 2))], lr=0.5)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("steps", "ratio"), [(10, 0.0), (10, 0.25), (1, 0.0), (7, 0.9)])
def test_the_learning_rate_is_that_of_transformers(kind, steps, ratio):
    given = settings(warmup_ratio=ratio, lr_scheduler=kind[0], lr_floor=kind[1])
    ours = rates_of(lambda optimizer: make_scheduler(optimizer, given, steps), steps)
    theirs = rates_of(lambda optimizer: SCHEDULES[kind](optimizer, math.ceil(ratio * steps), steps), steps)
    assert ours == (theirs if kind == ("linear", 0.0) else pytest.approx(theirs))


def test_a_floor_is_where_the_decay_ends():
    given = settings(warmup_ratio=0.0, lr_floor=0.2)
    assert rates_of(lambda optimizer: make_scheduler(optimizer, given, 5), 6)[-1] == pytest.approx(0.1)


def test_weights_decay_where_those_of_transformers_trainer_do(tmp_path):
    model = get_peft_model(tiny.tiny_model(), LoraConfig(target_modules="all-linear"))
    model.base_model.model.model.norm.weight.requires_grad_()  # a LoRA has no norm of its own
    arguments = TrainingArguments(str(tmp_path), weight_decay=0.1, optim="adamw_torch_fused", use_cpu=True)
    trainer = Trainer(model, arguments)
    trainer.create_optimizer()
    ours = make_optimizer(model.parameters(), settings(weight_decay=0.1), 5e-5)
    for mine, theirs in zip(ours.param_groups, trainer.optimizer.param_groups, strict=True):
        assert {id(weight) for weight in mine["params"]} == {id(weight) for weight in theirs["params"]}
        assert mine["params"]
        for name in ("lr", "betas", "eps", "weight_decay", "fused"):
            assert mine[name] == theirs[name], name


def test_a_validation_is_followed_by_a_checkpoint_and_the_last_step_by_both():
    schedule = Schedule(steps=11, learning_rate=0.1, batch_size=1, accumulation=1, eval_every=4, save_every=3)
    assert [step for step in range(1, 12) if schedule.validates_after(step)] == [4, 8, 11]
    assert [step for step in range(1, 12) if schedule.saves_after(step)] == [3, 4, 6, 8, 9, 11]
