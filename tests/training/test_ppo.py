"""Alignment by PPO: what it raises and logs, resume, guards, a reward model in place of grades, two processes."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
import torch
from sampled_runs import aligned, beside, student_of_four_numbers
from training_runs import adapter_weights, killed_in_step, metrics, same_run
from two_processes import run_in_two_processes

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.student.batching import Ids
from schema_student.training.alignment import ppo, prompt_link, stage
from schema_student.training.loop import TrainingLoop

SHORT = {"ppo_epochs": 2, "ppo_kl_weight": 0.01, "ppo_kl_limit": 1000.0, "ppo_entropy_share": 0.0}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return student_of_four_numbers(tmp_path_factory.mktemp("rl"))


@pytest.fixture
def settings(student, tmp_path):
    return beside(student, tmp_path, **SHORT)


def rewarding(monkeypatch, score):
    """Let a reward model score each answer's text by this function."""
    model = SimpleNamespace(score=lambda prompts, answers: [score(answer) for answer in answers])
    monkeypatch.setattr(ppo, "load_reward_model", lambda name: model)


def test_right_answers_become_likelier_and_each_step_says_how(settings):
    steps, read = aligned(settings, "ppo")
    assert len(steps) == 8 and [row["step"] for row in read] == [0, 4, 8]
    assert read[-1]["eval_p_truth"] > 1.5 * read[0]["eval_p_truth"] and steps[-1]["reward"] > steps[0]["reward"]
    named = {"reward", "reward_std", "valid", "right", "kl", "entropy", "explained_variance"}
    assert all(named | {"policy_loss", "value_loss", "clip_fraction"} <= set(row) for row in steps)
    first, second, third, fourth = steps[:4]
    assert first["kl"] == pytest.approx(0, abs=1e-6) and third["kl"] > 0 and 0 < first["entropy"] < math.log(300)
    assert first["clip_fraction"] == 0 and first["policy_loss"] == pytest.approx(0, abs=1e-4)  # normalized, ratio 1
    assert first["explained_variance"] == pytest.approx(0, abs=1e-6)  # the value head begins at 0
    assert second["reward"] == first["reward"] != third["reward"] and fourth["value_loss"] < third["value_loss"]
    final = paths(settings).link_dir("ppo") / "checkpoint-final"
    assert all("lora_" in name for name in adapter_weights(final))


def test_the_loss_of_values_leaves_the_policy_as_it_is(settings, monkeypatch):
    monkeypatch.setattr(ppo, "clipped_losses", lambda log_ratios, advantages, clip: torch.zeros_like(log_ratios))
    steps, _ = aligned(settings.changed(align_stop=1000.0), "ppo")
    trained = adapter_weights(paths(settings).link_dir("ppo") / "checkpoint-8")
    before = adapter_weights(paths(settings).sft_checkpoint)
    assert len(steps) == 8 and all(row["grad_norm"] > 0 for row in steps)  # of the value head
    assert all(torch.equal(trained[name], before[name]) for name in before)


def test_killed_within_a_draw_and_run_again_it_equals_an_undisturbed_run(settings, tmp_path, monkeypatch):
    stopped = settings.changed(output_dir=str(tmp_path / "stopped"))
    stage.train_link("ppo", settings)
    with killed_in_step(monkeypatch, 6):
        stage.train_link("ppo", stopped)
    stage.train_link("ppo", stopped)
    same_run(*(paths(each).link_dir("ppo") for each in (settings, stopped)))


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"ppo_kl_limit": 1e-5}, "KL to the student before is .* above --ppo-kl-limit 1e-05"),
        (
            {"ppo_entropy_share": 1.0, "rl_learning_rate": 0.03, "align_stop": 1000.0},
            "entropy fell to .* nats a token, below",
        ),
    ],
)
def test_a_guard_stops_the_run_and_keeps_what_it_had(settings, limit, said, capsys):
    settings = settings.changed(**limit, rl_max_steps=8, rl_eval_every=8)
    steps, read = aligned(settings, "ppo")
    run_dir = paths(settings).link_dir("ppo")
    stopped_after = steps[-1]["step"]
    assert stopped_after < 16 and read[-1]["step"] == stopped_after
    assert (run_dir / f"checkpoint-{stopped_after}").is_dir() and (run_dir / "checkpoint-final").is_dir()
    facts = read_json(run_dir / "run_config.json")
    assert re.search(said, facts["stopped"]) and f"stopped: {facts['stopped']}" in capsys.readouterr().out


def test_a_reward_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(settings, monkeypatch):
    rewarding(monkeypatch, lambda text: math.nan)
    with pytest.raises(UserError, match="reward is not finite at step 1 of"):
        stage.train_link("ppo", settings.changed(ppo_reward_model="rm"))


def test_a_reward_model_takes_the_place_of_grades(settings, monkeypatch):
    rewarding(monkeypatch, lambda text: -float(len(text)))  # short answers, and those that end
    steps, _ = aligned(settings.changed(ppo_reward_model="rm", align_stop=1000.0, rl_max_steps=6), "ppo")
    assert steps[0]["reward"] < 0 and steps[-1]["reward"] > steps[0]["reward"]


def test_an_answer_that_was_cut_off_has_less_of_a_reward_models_score():
    assert ppo.is_cut(Ids([1], [5, 6]), frozenset({7})) and not ppo.is_cut(Ids([1], [5, 7]), frozenset({7}))


def test_parts_of_a_micro_batch_give_the_loss_of_the_whole(settings, tmp_path, monkeypatch):
    settings = settings.changed(rl_max_steps=1)
    first, _ = aligned(settings, "ppo")
    alone = SimpleNamespace(cut_batches=lambda rows, order, *limits: [[i] for i in order])
    monkeypatch.setattr(ppo, "batching", alone)
    second, _ = aligned(settings.changed(output_dir=str(tmp_path / "parts")), "ppo")
    for ours, theirs in zip(first, second, strict=True):
        for name in ("loss", "grad_norm", "value_loss", "kl", "entropy", "explained_variance"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=2e-5), name


def test_two_processes_equal_one(settings, tmp_path):
    one, two = (settings.changed(output_dir=str(tmp_path / name), rl_max_steps=2) for name in "ab")
    stage.train_link("ppo", one)
    config = tmp_path / "two.json"
    write_json(config, {**two.flat(), "rl_gradient_accumulation": 1, "align": ["ppo"]})
    run_in_two_processes("scripts/align_student.py", "--config", str(config))
    for ours, theirs in zip(*(metrics(paths(each).link_dir("ppo")) for each in (one, two)), strict=True):
        numbers = {name for name, value in ours.items() if isinstance(value, float)}
        assert {n: theirs[n] for n in numbers} == pytest.approx({n: ours[n] for n in numbers}, rel=2e-3, abs=2e-5)


def test_a_draws_steps_take_the_same_batches_and_the_next_draw_others(settings, monkeypatch):
    seen = []
    collate = TrainingLoop.collate_step

    def noted(self, number):
        seen.append([name for batch in collate(self, number) for name in batch["names"]])
        return collate(self, number)

    monkeypatch.setattr(TrainingLoop, "collate_step", noted)
    stage.train_link("ppo", settings.changed(rl_max_steps=2))
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_the_checkpoint_of_the_greatest_reward_is_taken_and_the_student_before_where_none_is_above_it(tmp_path):
    def chosen(*rewards):
        rows = [
            {"step": i, "eval_prompts": 9, "eval_reward": r, "eval_reward_change": r - 1.0, "eval_reward_error": 0.25}
            for i, r in enumerate(rewards)
        ]
        write_jsonl(tmp_path / "training_metrics.jsonl", [{**row, "eval_runtime": 0.0} for row in rows])
        return prompt_link.choose_by_reward(tmp_path, list(range(1, len(rewards))))

    best = chosen(1.0, 1.5, 2.0, 1.75)
    assert (best["checkpoint"], best["sft_was_better"]) == ("checkpoint-2", False)
    assert best["why"] == "mean reward of 9 held-out prompts 1.000 -> 2.000 (+1.000 +- 0.250, z = 4.0)"
    assert chosen(1.0, 0.5)["sft_was_better"]
