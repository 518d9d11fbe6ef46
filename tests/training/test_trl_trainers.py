"""`--trainer trl`: trl's own trainers on our rows, batches and seed lose step by step what our loop loses."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from training_runs import (
    SHORT,
    adapter_weights,
    corpus_rows,
    killed_at_record,
    metrics,
    same_run,
    settings_with_corpus,
    settings_with_pairs,
)

from schema_student.core.errors import UserError
from schema_student.core.paths import paths
from schema_student.training import sft
from schema_student.training.dpo import stage

FIXED = {**SHORT, "beta_controller": "fixed", "dpo_sft_weight": 0.0}
# In float32 both round otherwise; Adam divides by gradients of the same size as their rounding, which grows in a run.
NEAR = {"rel": 2e-4, "abs": 2e-5}


def assert_same_steps(ours, theirs, names):
    assert [row["step"] for row in theirs] == [row["step"] for row in ours]
    for our, their in zip(ours, theirs, strict=True):
        assert set(their) == set(our)
        assert their["epoch"] == our["epoch"] and their.get("learning_rate") == our.get("learning_rate")
        assert {n: v for n, v in their.items() if n in names} == pytest.approx(
            {n: v for n, v in our.items() if n in names}, **NEAR
        )


@pytest.mark.parametrize("more", [{}, {"gradient_accumulation": 2, "sft_batch_size": 3}])
def test_sft_loses_step_by_step_what_our_loop_loses_and_leaves_the_same_files(tmp_path, more):
    rows = corpus_rows()
    for row in rows[::3]:
        row["completion"] = json.dumps({"n": 10**9})  # of other lengths, so that there is padding
    runs = {}
    for trainer in ("own", "trl"):
        settings = settings_with_corpus(tmp_path / trainer, rows, trainer=trainer, **more)
        sft.train_sft(settings)
        runs[trainer] = paths(settings).run_dir
    assert_same_steps(*map(metrics, runs.values()), {"loss", "grad_norm", "eval_loss"})
    own, trl = ({str(path.relative_to(run)) for path in run.rglob("*")} for run in runs.values())
    assert own == trl
    ours, theirs = (adapter_weights(run / "checkpoint-final") for run in runs.values())
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-3) for name in ours)


def test_dpo_with_a_fixed_beta_loses_step_by_step_what_our_loop_loses(tmp_path):
    settings = settings_with_pairs(tmp_path, **FIXED)
    stage.train_dpo(settings)
    run_dir = paths(settings).dpo_dir
    ours = metrics(run_dir)
    shutil.rmtree(run_dir)
    run_dir.with_name(f"{run_dir.name}.meta.json").unlink()
    stage.train_dpo(settings.changed(trainer="trl"))
    names = {"loss", "grad_norm", "margin", "eval_loss", "eval_margin", "eval_p_truth", "beta/effective"}
    names |= {f"rewards/{name}" for name in ("chosen", "rejected", "margins")}
    assert_same_steps(ours, metrics(run_dir), names | {"logps/chosen", "logps/rejected"})
    assert not [name for name in adapter_weights(run_dir / "checkpoint-6") if ".ref." in name]
    assert not (run_dir / "margins.jsonl").exists() and (run_dir / "beta_trace.jsonl").read_text() == ""


def test_a_run_by_trl_that_was_stopped_ends_like_an_undisturbed_one(tmp_path, monkeypatch):
    more = {"trainer": "trl", "lora_dropout": 0.2}
    undisturbed = settings_with_corpus(tmp_path / "a", **more)
    sft.train_sft(undisturbed)
    stopped = settings_with_corpus(tmp_path / "b", **more)
    with killed_at_record(monkeypatch, 4):
        sft.train_sft(stopped)
    sft.train_sft(stopped)
    same_run(paths(undisturbed).run_dir, paths(stopped).run_dir)


def test_a_loss_that_is_not_finite_stops_a_run_by_trl(tmp_path):
    settings = settings_with_corpus(tmp_path, trainer="trl", sft_learning_rate=1e30, eval_every=9, save_every=9)
    with pytest.raises(UserError, match=r"(loss|gradient) is not finite at step 3 of d_04_training_corpus.jsonl:"):
        sft.train_sft(settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "trl's DPOTrainer keeps beta fixed, calibrated does not: give --beta-controller fixed"),
        ({"beta_controller": "epsilon"}, "keeps beta fixed, epsilon does not"),
        ({"beta_controller": "fixed", "dpo_sft_weight": 0.5}, "has no dpo_sft_weight: give --dpo-sft-weight 0"),
        ({"beta_controller": "fixed", "dpo_sft_weight": 0.0, "dpo_positive_weight": 5.0}, "no dpo_positive_weight"),
    ],
)
def test_what_trl_cannot_do_is_refused_by_name(tmp_path, changes, said):
    settings = settings_with_corpus(tmp_path, trainer="trl", **changes)
    with pytest.raises(UserError, match=said):
        stage.train_dpo(settings)


def test_several_processes_and_a_missing_trl_are_refused(tmp_path, monkeypatch):
    settings = settings_with_corpus(tmp_path, trainer="trl")
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match="one process, not in 2"):
            sft.train_sft(settings)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs trl, which is not installed"):
        sft.train_sft(settings)


def test_a_run_by_our_loop_is_not_gone_on_with_by_trl(tmp_path):
    settings = settings_with_corpus(tmp_path, sft_max_steps=1)
    sft.train_sft(settings)
    with pytest.raises(UserError, match='trainer was "own", now "trl"'):
        sft.train_sft(settings.changed(trainer="trl"))
