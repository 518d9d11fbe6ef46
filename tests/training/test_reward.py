"""Reward models: their losses, a run of trl's trainer and of our loop, resume, what is said and what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from training_runs import killed_at_record, killed_in_step, metrics, pair_rows, same_run, settings_with_pairs

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import resolve_auto
from schema_student.preference import imports
from schema_student.student.loading import WEIGHTS
from schema_student.student.reward_model import load_reward_model
from schema_student.training.reward import fitting, stage
from schema_student.training.reward.losses import centering_losses, ranking_losses

SHORT = {"reward_epochs": 3, "reward_batch_size": 4, "reward_eval_every": 2, "reward_learning_rate": 0.02}


def settings_for(folder, **changes):
    return settings_with_pairs(folder, **{**SHORT, **changes})


def test_the_ranking_loss_is_the_log_likelihood_of_the_preference_beyond_the_margin():
    losses = ranking_losses(torch.tensor([2.0, 0.0]), torch.tensor([0.5, 1.0]), torch.tensor([1.0, 0.0]))
    expected = [-math.log(1 / (1 + math.exp(-0.5))), -math.log(1 / (1 + math.exp(1.0)))]
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)
    assert centering_losses(torch.tensor([2.0]), torch.tensor([0.5])).tolist() == [6.25]


def test_the_gradient_of_the_ranking_loss_is_that_of_finite_differences():
    scores = torch.tensor([[0.3, -1.2], [0.9, 0.4]], dtype=torch.float64, requires_grad=True)
    margins = torch.tensor([0.5, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ranking_losses(s[0], s[1], margins), (scores,))


@pytest.mark.parametrize("more", [{}, {"reward_margin": 0.5, "reward_center": 0.1}])
def test_our_loop_loses_step_by_step_what_trl_loses_and_leaves_the_same_files(tmp_path, more):
    runs = {}
    for trainer in ("own", "trl"):
        settings = settings_for(tmp_path / trainer, **more)
        stage.train_reward(settings.changed(trainer=trainer))
        runs[trainer] = paths(settings).reward_dir
    ours, theirs = map(metrics, runs.values())
    assert len(ours) == len(theirs) == 10 and [set(row) for row in ours] == [set(row) for row in theirs]
    first, same = (row for row in (ours[1], theirs[1]))
    assert first["loss"] == pytest.approx(same["loss"], abs=1e-5)
    for our, their in zip(ours, theirs, strict=True):
        assert our == pytest.approx(their, rel=2e-4, abs=2e-4)
    own, trl = ({str(path.relative_to(run)) for path in run.rglob("*")} for run in runs.values())
    assert own == trl


@pytest.mark.parametrize("trainer", ["own", "trl"])
def test_a_run_that_was_stopped_ends_like_an_undisturbed_one(tmp_path, monkeypatch, trainer):
    undisturbed, stopped = (settings_for(tmp_path / name).changed(trainer=trainer) for name in "ab")
    stage.train_reward(undisturbed)
    with stopping(monkeypatch, trainer):
        stage.train_reward(stopped)
    stage.train_reward(stopped)
    same_run(paths(undisturbed).reward_dir, paths(stopped).reward_dir)


def stopping(monkeypatch, trainer):
    """Within it, training ends in step 4, as by Ctrl-C."""
    if trainer == "own":
        return killed_in_step(monkeypatch, 4)
    return killed_at_record(monkeypatch, 4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A reward model of the tiny student that has learned its pairs."""
    settings = settings_for(tmp_path_factory.mktemp("reward"), reward_epochs=12, reward_merged=True)
    stage.train_reward(settings)
    return settings


def test_it_orders_held_out_pairs_and_says_so_in_words(trained, capsys):
    run_dir = paths(trained).reward_dir
    rows = [row for row in read_jsonl(run_dir / "training_metrics.jsonl") if "eval_accuracy" in row]
    assert rows[-1]["eval_accuracy"] == 1.0 and rows[-1]["eval_margin"] > 1
    facts = read_json(run_dir / "run_config.json")
    assert facts["why"] == "of 2 held-out pairs it orders 2 rightly, 100.0% (34.2% to 100.0%)"
    assert facts["stage"] == "reward" and facts["pairs"] == 8 and facts["adapter"].endswith("checkpoint-final")


@pytest.mark.parametrize("folder", ["checkpoint-final", "merged"])
def test_what_it_wrote_scores_answers_as_it_was_taught(trained, folder):
    reward = load_reward_model(str(paths(trained).reward_dir / folder))
    pairs = pair_rows()
    chosen, rejected = (
        reward.score([pair["prompt"] for pair in pairs], [pair[side] for pair in pairs])
        for side in ("chosen", "rejected")
    )
    assert all(better > worse for better, worse in zip(chosen, rejected, strict=True))


def test_any_preference_data_train_one_with_a_fresh_lora(tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": "yes", "rejected": f"no {i}"} for i in range(12)]
    write_jsonl(tmp_path / "prefs.jsonl", rows)
    settings = tiny.tiny_settings(tmp_path, **SHORT, data_set=str(tmp_path / "prefs.jsonl"), reward_max_steps=2)
    imports.import_pairs(settings)
    final = stage.train_reward(settings)
    assert final == tmp_path / "outputs/student_runs/prefs-reward/checkpoint-final"
    facts = read_json(final.parent / "run_config.json")
    assert facts["adapter"] is None and facts["data_set"]["rows"] == 12 and (final / WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("ranks", "gap"), [((5, 2), 3.0), ((5, 5), 1.0), ((None, None), 1.0), ((True, 0), 1.0), ((1, 4), 1.0)]
)
def test_the_margin_counts_ranks_where_they_are_known(ranks, gap):
    assert fitting.rank_gap(ranks) == gap


class Enough(Exception):
    """Raised where what is asked has been seen."""


def test_pairs_are_trained_on_with_their_margins_and_not_those_that_are_held_out(tmp_path, monkeypatch):
    seen = []

    def plan(settings, rows):
        seen.extend(rows)
        raise Enough

    monkeypatch.setattr(fitting, "make_reward_model", lambda *_: SimpleNamespace(tokenizer=tiny.tiny_tokenizer()))
    monkeypatch.setattr(fitting, "plan_reward", plan)
    write_jsonl(tmp_path / "pairs.jsonl", [*pair_rows(8, 2), {**pair_rows(1)[0], "rejected_rank": None}])
    settings = resolve_auto(tiny.tiny_settings(tmp_path, reward_margin=0.5), "embedded")
    with pytest.raises(Enough):
        fitting.fit(settings, tmp_path / "pairs.jsonl", None, tmp_path / "run")
    assert [row["margin"] for row in seen] == [1.5] * 8 + [0.5]
    assert len(seen[0]["rejected"].completion_ids) == len(seen[8]["rejected"].completion_ids) > 5


def test_the_checkpoint_that_orders_most_pairs_is_taken_of_equal_ones_that_of_the_least_loss(tmp_path):
    named = ("step", "eval_accuracy", "eval_loss")
    found = [(0, 1.0, 0.0), (2, 0.8, 0.5), (4, 0.8, 0.4), (6, 0.6, 0.1), (8, 1.0, 0.1)]
    rows = [{**dict(zip(named, each, strict=True)), "eval_pairs": 5} for each in found]
    write_jsonl(tmp_path / "training_metrics.jsonl", [*rows, {"step": 4, "loss": 0.1}])
    chosen = fitting.choose_checkpoint(tmp_path, [2, 4, 6])
    assert chosen["checkpoint"] == "checkpoint-4" and (chosen["accuracy"]["k"], chosen["accuracy"]["n"]) == (4, 5)
    assert chosen["why"] == "of 5 held-out pairs it orders 4 rightly, 80.0% (37.6% to 96.4%)"


def test_without_held_out_pairs_the_last_checkpoint_is_taken_and_without_pairs_it_is_refused(tmp_path):
    settings = settings_for(tmp_path, reward_max_steps=3)
    write_jsonl(paths(settings).pairs, pair_rows(8, 0))
    stage.train_reward(settings)
    facts = read_json(paths(settings).reward_dir / "run_config.json")
    assert (facts["checkpoint"], facts["accuracy"]) == ("checkpoint-3", None) and "no pairs are held out" in facts[
        "why"
    ]
    write_jsonl(paths(settings).pairs, pair_rows(0, 2))
    with pytest.raises(UserError, match="no pair to train on; give more pairs"):
        stage.train_reward(settings.changed(run="student", overwrite=True))
