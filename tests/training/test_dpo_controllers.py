"""Every beta controller in a run: fed once a step, saved, resumed and replayable; its betas are those of the loss."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress

import pytest
import torch
from training_runs import (
    SHORT,
    adapter_weights,
    killed_in_step,
    pair_rows,
    same_run,
    settings_with_pairs,
)
from two_processes import run_in_two_processes

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import resolve_auto
from schema_student.student.loading import load_student
from schema_student.training.batches import Batches
from schema_student.training.dpo import beta as betas
from schema_student.training.dpo import epsilon, objective, stage
from schema_student.training.dpo.losses import dpo_losses


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each further controller: six steps, long enough to save, validate and go on."""
    made = {}
    for kind in ("fixed", "hoeffding", "beta_dpo", "epsilon"):
        made[kind] = settings_with_pairs(tmp_path_factory.mktemp(kind), beta_controller=kind, **SHORT)
        stage.train_dpo(made[kind])
    return made


@pytest.mark.parametrize("kind", ["fixed", "hoeffding", "beta_dpo", "epsilon"])
def test_a_run_of_any_controller_replays(runs, kind):
    run_dir = paths(runs[kind]).dpo_dir
    assert betas.replay_run(run_dir) == (5 if kind == "hoeffding" else 6)
    trace = [row for row in read_jsonl(run_dir / "beta_trace.jsonl") if "beta" in row]
    logged = [row["beta/effective"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    assert [row["beta"] for row in trace] == logged[-len(trace) :]
    assert (len(set(logged)) > 1) == (kind != "fixed")


def test_replay_reads_margins_from_their_row_or_their_file_and_both_must_agree(runs, tmp_path):
    shutil.copytree(paths(runs["beta_dpo"]).dpo_dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "margins")
    assert betas.replay_run(tmp_path / "run") == 6  # four margins a step: the row shows all of them
    rows = read_jsonl(tmp_path / "run" / "margins.jsonl")
    rows[3]["sample"][1] += 1e-9
    write_jsonl(tmp_path / "run" / "margins.jsonl", rows)
    with pytest.raises(UserError, match=r"beta_trace.jsonl:4: logged"):
        betas.replay_run(tmp_path / "run")
    shutil.copytree(paths(runs["beta_dpo"]).dpo_dir / "margins", tmp_path / "run" / "margins")
    with pytest.raises(UserError, match=r"step_000004.npy: these are not the margins that margins.jsonl logged"):
        betas.replay_run(tmp_path / "run")


@pytest.mark.parametrize("steps", [[1, 2, 3, 3, 5, 6], [1, 2, 3, 5, 4, 6]])
def test_replay_finds_a_step_that_is_not_the_controllers(runs, tmp_path, steps):
    shutil.copytree(paths(runs["fixed"]).dpo_dir, tmp_path / "run")
    rows = read_jsonl(tmp_path / "run" / "margins.jsonl")
    write_jsonl(tmp_path / "run" / "margins.jsonl", [{**row, "step": n} for row, n in zip(rows, steps, strict=True)])
    with pytest.raises(UserError, match=rf"margins.jsonl:4: of step {steps[3]}, where step 4 was due"):
        betas.replay_run(tmp_path / "run")


def test_the_loss_of_beta_dpo_is_the_mean_over_the_pairs_it_keeps(runs):
    run_dir = paths(runs["beta_dpo"]).dpo_dir
    losses = [row["loss"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    margins, trace = read_jsonl(run_dir / "margins.jsonl"), read_jsonl(run_dir / "beta_trace.jsonl")
    for loss, row, traced in zip(losses, margins, trace, strict=True):
        kept = torch.tensor([row["sample"][i] for i in traced["kept"]])
        assert len(kept) == 3
        assert float(dpo_losses(kept, traced["beta"]).mean()) == pytest.approx(loss, rel=1e-5)


def test_the_loss_of_epsilon_has_a_beta_for_each_pair(runs):
    run_dir = paths(runs["epsilon"]).dpo_dir
    losses = [row["loss"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    margins, trace = read_jsonl(run_dir / "margins.jsonl"), read_jsonl(run_dir / "beta_trace.jsonl")
    assert margins[0]["signs"] == [0] * 4  # the policy is its reference
    assert any(any(row["signs"]) for row in margins)
    for loss, row, traced in zip(losses, margins, trace, strict=True):
        pair_betas = traced["beta"] / (1 + 0.01 * torch.tensor(row["signs"]))
        assert float(dpo_losses(torch.tensor(row["sample"]), pair_betas).mean()) == pytest.approx(loss, rel=1e-5)


def test_the_trained_adapter_is_back_after_a_pass_of_the_reference_that_fails(runs):
    settings = resolve_auto(runs["epsilon"], "embedded")
    student = load_student(settings, adapter=str(paths(settings).sft_checkpoint), trainable=True)
    signs = epsilon.PairSigns(Batches.of(student, settings, 4, trees=False), 0.01)
    weight = next(weight for weight in student.model.parameters() if weight.requires_grad)
    before, trained = weight.data.clone(), weight.data + 1
    weight.data = trained
    with suppress(RuntimeError), signs.as_reference():
        assert torch.equal(weight, before)
        raise RuntimeError("out of memory")
    assert torch.equal(weight, trained)


@pytest.mark.parametrize("kind", ["beta_dpo", "epsilon"])
def test_any_controller_killed_and_run_again_equals_an_undisturbed_run(runs, tmp_path, monkeypatch, kind):
    settings = settings_with_pairs(tmp_path, beta_controller=kind, **SHORT)
    with killed_in_step(monkeypatch, 5):
        stage.train_dpo(settings)
    stage.train_dpo(settings)
    ours, theirs = paths(settings).dpo_dir, paths(runs[kind]).dpo_dir
    same_run(ours, theirs)
    for name in ("margins.jsonl", "beta_trace.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_beta_dpo_takes_the_global_batch_of_the_step_whatever_its_micro_batches(tmp_path):
    settings = settings_with_pairs(tmp_path, beta_controller="beta_dpo", **{**SHORT, "dpo_max_steps": 3})
    settings = settings.changed(dpo_gradient_accumulation=2)
    stage.train_dpo(settings)
    trace = read_jsonl(paths(settings).dpo_dir / "beta_trace.jsonl")
    assert [len(row["kept"]) for row in trace] == [int(8 * 0.8)] * 3
    losses = [row["loss"] for row in read_jsonl(paths(settings).dpo_dir / "training_metrics.jsonl") if "loss" in row]
    for loss, row, traced in zip(losses, read_jsonl(paths(settings).dpo_dir / "margins.jsonl"), trace, strict=True):
        kept = torch.tensor([row["sample"][i] for i in traced["kept"]])
        assert float(dpo_losses(kept, traced["beta"]).mean()) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(("kind", "passes"), [("fixed", 6), ("calibrated", 12)])
def test_micro_batches_are_read_twice_only_where_beta_needs_their_margins(tmp_path, monkeypatch, kind, passes):
    steps = {"dpo_max_steps": 3, "dpo_eval_every": 3, "dpo_batch_size": 4, "beta_controller": kind}
    settings = settings_with_pairs(tmp_path, **steps, dpo_gradient_accumulation=2, gradient_accumulation=3)
    write_jsonl(paths(settings).pairs, pair_rows(held_out=0))
    real, seen = objective.DPO.margins_of, []
    monkeypatch.setattr(objective.DPO, "margins_of", lambda *given: seen.append(1) or real(*given))
    stage.train_dpo(settings)
    assert len(seen) == passes
    run_dir = paths(settings).dpo_dir
    assert betas.replay_run(run_dir) == (3 if kind == "fixed" else 0)
    losses = [row["loss"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    for loss, row in zip(losses, read_jsonl(run_dir / "margins.jsonl"), strict=True):
        assert row["n"] == 8
        assert float(dpo_losses(torch.tensor(row["sample"]), 0.1).mean()) == pytest.approx(loss, rel=1e-5)


def test_validation_leaves_the_controller_as_it_was(tmp_path, monkeypatch):
    settings, seen = settings_with_pairs(tmp_path, **SHORT), []
    validate = objective.DPO.validate

    def watched(self):
        before = json.dumps(self.controller.state_dict())
        metrics = validate(self)
        seen.append(json.dumps(self.controller.state_dict()) == before)
        return metrics

    monkeypatch.setattr(objective.DPO, "validate", watched)
    stage.train_dpo(settings)
    assert seen == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["calibrated", "beta_dpo"])
def test_two_processes_equal_one_with_the_same_global_batch(tmp_path, kind):
    changes = {"dpo_max_steps": 12, "dpo_eval_every": 6, "dpo_learning_rate": 1e-3, "beta_controller": kind}
    one = settings_with_pairs(tmp_path / "one", **changes)
    two = one.changed(output_dir=str(tmp_path / "two"))
    shutil.copytree(one.run.output_dir, two.run.output_dir)
    config = tmp_path / "two.json"
    config.write_text(json.dumps(two.flat()))
    run_in_two_processes("scripts/train_alignment_dpo.py", "--config", str(config))
    one = one.changed(dpo_gradient_accumulation=2)
    stage.train_dpo(one)
    ours, theirs = paths(two).dpo_dir, paths(one).dpo_dir
    assert betas.replay_run(ours) == betas.replay_run(theirs)
    for name in ("beta_trace.jsonl", "margins.jsonl", "training_metrics.jsonl"):
        rows = read_jsonl(ours / name), read_jsonl(theirs / name)
        for row, other in zip(*rows, strict=True):
            assert row.keys() == other.keys()
            if "beta" in row:
                assert row["beta"] == pytest.approx(other["beta"], abs=1e-9) and row.get("kept") == other.get("kept")
            for key in {"loss", "grad_norm"} & row.keys():
                assert row[key] == pytest.approx(other[key], rel=1e-4), (key, row["step"])
            if "logps/chosen" in row:  # of the pairs of both processes
                assert row["logps/chosen"] == pytest.approx(other["logps/chosen"], rel=1e-5)
            if "mean" in row and "n" in row:
                assert row["n"] == 4 and row["mean"] == pytest.approx(other["mean"], abs=1e-4)
    assert any(row.get("beta", 0.1) != 0.1 for row in read_jsonl(ours / "beta_trace.jsonl"))
    for name in ("checkpoint-6", "checkpoint-12", "checkpoint-final"):
        a, b = adapter_weights(ours / name), adapter_weights(theirs / name)
        assert max(float((a[key] - b[key]).abs().max()) for key in a) < 1e-5
