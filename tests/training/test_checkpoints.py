"""Checkpoints are whole, come back as they were, and none is half of one."""

import random

import tiny
import torch
from training_runs import settings_with_corpus

from schema_student.core.paths import paths
from schema_student.core.settings import resolve_auto
from schema_student.student.loading import attach_lora
from schema_student.training import sft
from schema_student.training.checkpoints import (
    find_checkpoints,
    last_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from schema_student.training.optimization import make_optimizer, make_scheduler


def prepare(folder, seed=0):
    """A student with a fresh LoRA, its optimizer and its scheduler, after one step."""
    settings = resolve_auto(tiny.tiny_settings(folder, seed=seed), "embedded")
    student = attach_lora(tiny.tiny_student(folder), settings)
    optimizer = make_optimizer(student.model.parameters(), settings, 0.1)
    scheduler = make_scheduler(optimizer, settings, 10)
    student.model(torch.arange(5, 25)[None]).logits.square().mean().backward()
    optimizer.step()
    scheduler.step()
    return student, optimizer, scheduler


def test_a_checkpoint_gives_back_what_was_saved(tmp_path):
    student, optimizer, scheduler = prepare(tmp_path)
    save_checkpoint(tmp_path / "run", 3, student, optimizer, scheduler, {"mine": [1, 2.5]})
    drawn = random.random(), torch.rand(3)
    other = prepare(tmp_path, seed=1)
    state = load_checkpoint(tmp_path / "run" / "checkpoint-3", *other)
    assert state == {"step": 3, "mine": [1, 2.5]}
    assert random.random() == drawn[0] and torch.equal(torch.rand(3), drawn[1])
    weights = zip(student.model.parameters(), other[0].model.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in weights)
    assert other[2].state_dict() == scheduler.state_dict()
    moments = zip(optimizer.state.values(), other[1].state.values(), strict=True)
    assert all(torch.equal(mine["exp_avg"], theirs["exp_avg"]) for mine, theirs in moments)


def test_a_checkpoint_of_a_run_is_complete_and_nothing_half_is_left(tmp_path):
    settings = settings_with_corpus(tmp_path, sft_max_steps=2)
    sft.train_sft(settings)
    run_dir = paths(settings).run_dir
    names = {"adapter_config.json", "adapter_model.safetensors", "schema_student.json"}
    names |= {"optimizer.pt", "scheduler.pt", "rng_state.pth", "stage_state.json"}
    assert {path.name for path in (run_dir / "checkpoint-2").iterdir()} == names
    assert not (run_dir / ".partial").exists()


def test_the_last_checkpoint_is_the_one_of_the_greatest_step(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-final", ".partial/checkpoint-11"):
        (tmp_path / name).mkdir(parents=True)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert last_checkpoint(tmp_path / "nothing") is None


def test_the_random_state_comes_back():
    state = random_state()
    drawn = random.random(), torch.rand(2)
    set_random_state(state)
    assert (random.random(), torch.rand(2).tolist()) == (drawn[0], drawn[1].tolist())
