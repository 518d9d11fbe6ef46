"""A run of DPO: what it leaves, resume, micro-batches, the kept reference, and input that is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from training_runs import (
    DPO_STEPS,
    SHORT,
    adapter_weights,
    killed_in_step,
    pair_rows,
    same_run,
    settings_with_pairs,
)

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.student.generation import generate
from schema_student.student.loading import load_student
from schema_student.training.dpo import beta as betas
from schema_student.training.dpo import reference, stage
from schema_student.training.dpo.losses import dpo_losses


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A whole run of SFT and DPO on the tiny student."""
    settings = settings_with_pairs(tmp_path_factory.mktemp("dpo"))
    stage.train_dpo(settings)
    return settings


def test_a_run_leaves_what_the_contract_names(aligned):
    run_dir = paths(aligned).dpo_dir
    rows = [row for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    named = {"step", "epoch", "loss", "grad_norm", "learning_rate", "beta/effective"}
    named |= {f"rewards/{name}" for name in ("chosen", "rejected", "accuracies", "margins")} | {
        "logps/chosen",
        "logps/rejected",
    }
    assert all(named <= set(row) for row in rows) and len(rows) == DPO_STEPS
    assert {"risk/p_hat", "risk/tau", "risk/u", "risk/s"} <= set(rows[-1])
    margins = read_jsonl(run_dir / "margins.jsonl")
    stats = ["n", "mean", "std", "min", "p10", "median", "p90", "max", "pos_frac"]
    assert [list(row) for row in margins] == [["step", "epoch", *stats, "npy", "sample"]] * DPO_STEPS
    trace = read_jsonl(run_dir / "beta_trace.jsonl")
    assert trace[0]["type"] == "warmup_end" and {"tau_0", "beta_0"} <= set(trace[0])
    assert set(trace[1]) == {"step", "tau", "p_hat", "over", "beta", "u", "s"}
    assert [row["step"] for row in trace[1:]] == list(range(11, DPO_STEPS + 1))


@pytest.mark.parametrize("trainer", ["own", "trl"])
def test_an_alignment_of_the_mlp_leaves_attention_as_sft_left_it(tmp_path, trainer):
    fixed = {"trainer": trainer, "beta_controller": "fixed"}
    settings = settings_with_pairs(tmp_path, **{**SHORT, **fixed, "align_modules": "mlp", "dpo_sft_weight": 0.0})
    stage.train_dpo(settings)
    before = adapter_weights(paths(settings).sft_checkpoint)
    after = adapter_weights(paths(settings).dpo_dir / "checkpoint-6")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if ".self_attn." in name} != {*before}


def test_step_1_starts_from_the_sft_student(aligned):
    first = read_jsonl(paths(aligned).dpo_dir / "margins.jsonl")[0]
    assert max(abs(first["min"]), abs(first["max"])) < 1e-4
    assert read_jsonl(paths(aligned).dpo_dir / "training_metrics.jsonl")[1]["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_dpo_raises_the_margin_of_held_out_pairs(aligned):
    rows = [row for row in read_jsonl(paths(aligned).dpo_dir / "training_metrics.jsonl") if "eval_margin" in row]
    assert rows[0]["eval_margin"] == rows[0]["eval_rewards/accuracies"] == 0
    assert rows[-1]["eval_margin"] > 0.1 and rows[-1]["eval_rewards/accuracies"] == 1
    assert {"eval_p_truth", "eval_greedy"} <= set(rows[-1])


def test_the_loss_log_is_the_loss_of_the_logged_margins_and_beta(aligned):
    run_dir = paths(aligned).dpo_dir
    losses = [row for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    for logged, row in zip(losses, read_jsonl(run_dir / "margins.jsonl"), strict=True):
        margins = torch.tensor(row["sample"])
        assert float(dpo_losses(margins, logged["beta/effective"]).mean()) == pytest.approx(logged["loss"], rel=1e-5)


def test_the_trace_replays_to_the_last_digit_and_a_change_is_found(aligned, tmp_path):
    run_dir = paths(aligned).dpo_dir
    assert betas.replay_run(run_dir) == DPO_STEPS - 9
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run_config.json", "margins.jsonl", "margins"):
        (copy / name).symlink_to(run_dir / name)
    rows = read_jsonl(run_dir / "beta_trace.jsonl")
    rows[2]["beta"] += 1e-12
    write_jsonl(copy / "beta_trace.jsonl", rows)
    with pytest.raises(UserError, match=r"beta_trace.jsonl:3: logged"):
        betas.replay_run(copy)
    write_jsonl(copy / "beta_trace.jsonl", read_jsonl(run_dir / "beta_trace.jsonl")[:-1])
    with pytest.raises(UserError, match="has 4 rows"):
        betas.replay_run(copy)


@pytest.mark.parametrize("kill_at", [3, 8, 13])
def test_killed_and_run_again_it_equals_an_undisturbed_run(aligned, tmp_path, monkeypatch, kill_at):
    settings = settings_with_pairs(tmp_path)
    with killed_in_step(monkeypatch, kill_at):
        stage.train_dpo(settings)
    stage.train_dpo(settings)
    ours, theirs = paths(settings).dpo_dir, paths(aligned).dpo_dir
    same_run(ours, theirs)
    for name in ("margins.jsonl", "beta_trace.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_micro_batches_share_one_beta_and_equal_one_batch(tmp_path):
    few = {"dpo_max_steps": 12, "dpo_eval_every": 12}
    whole = settings_with_pairs(tmp_path / "a", dpo_batch_size=8, **few)
    parts = settings_with_pairs(tmp_path / "b", dpo_batch_size=4, **few)
    stage.train_dpo(whole)
    parts = parts.changed(dpo_gradient_accumulation=2)
    stage.train_dpo(parts)
    ours, theirs = (read_jsonl(paths(s).dpo_dir / "margins.jsonl") for s in (whole, parts))
    assert [row["n"] for row in theirs] == [8] * 12
    for one, other in zip(ours, theirs, strict=True):
        assert one["mean"] == pytest.approx(other["mean"], abs=1e-2)
    a, b = (adapter_weights(paths(s).dpo_dir / "checkpoint-12") for s in (whole, parts))
    assert all(torch.allclose(a[name], b[name], atol=1e-2) for name in a)


def test_reference_logps_are_kept_for_later_runs_on_the_same_pairs(aligned, tmp_path, monkeypatch, capsys):
    settings = settings_with_pairs(tmp_path, dpo_max_steps=1)
    stage.train_dpo(settings)
    real = reference.compute_reference_logps

    def count(rows, batches):
        made.append(len(rows))
        return real(rows, batches)

    made: list[int] = []
    monkeypatch.setattr(reference, "compute_reference_logps", count)
    again = settings.changed(beta=0.3, beta_controller="fixed", dpo_learning_rate=0.001, overwrite=True)
    stage.train_dpo(again)
    assert made == [] and "computed before" in capsys.readouterr().out
    rows = pair_rows()
    write_jsonl(paths(settings).pairs, [{**rows[0], "rejected": '{"k":1}'}, *rows[1:]])
    stage.train_dpo(again)
    assert made == [2, 8]


def test_the_reference_is_another_with_another_dtype_adapter_setting_backend_or_quantization(aligned, tmp_path):
    adapter = Path(shutil.copytree(paths(aligned).sft_checkpoint, tmp_path / "adapter"))

    def name(settings=aligned, backend="transformers"):
        student = load_student(settings.changed(load_in_4bit=False))
        student.choice = replace(student.choice, backend=backend)
        return reference.name_reference(student, adapter, settings)

    names = [name(), name(aligned.changed(dtype="bfloat16")), name(aligned.changed(load_in_4bit=True))]
    names.append(name(backend="unsloth"))
    assert name() == names[0]
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}))
    assert len({*names, name()}) == 5


def test_bad_input_is_named(aligned, tmp_path):
    settings = settings_with_pairs(tmp_path)
    with pytest.raises(UserError, match="no adapter at"):
        stage.train_dpo(settings.changed(adapter=str(tmp_path / "nowhere")))
    other = tmp_path / "other_base"
    tiny.save_tiny(other, seed=5)
    with pytest.raises(UserError, match="was trained on"):
        stage.train_dpo(settings.changed(base_model=str(other)))
    same = [{**row, "rejected": row["chosen"]} for row in pair_rows()]
    write_jsonl(paths(settings).pairs, same)
    with pytest.raises(UserError, match="no pair to train on"):
        stage.train_dpo(settings)
    write_jsonl(paths(settings).pairs, [])
    with pytest.raises(UserError, match="no pair to train on"):
        stage.train_dpo(settings.changed(overwrite=True))


def test_a_resume_with_other_settings_or_another_base_is_refused(aligned, monkeypatch):
    with pytest.raises(UserError, match=r"beta_controller was \"calibrated\", now \"fixed\""):
        stage.train_dpo(aligned.changed(beta_controller="fixed"))
    monkeypatch.setattr(stage, "base_digest", lambda base: f"new weights in {base}")
    monkeypatch.setattr(stage, "check_adapter", lambda *_: None)
    with pytest.raises(UserError, match="base_digest was"):
        stage.train_dpo(aligned)


def test_a_resume_with_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path, **SHORT)
    with killed_in_step(monkeypatch, 4):
        stage.train_dpo(settings)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="begun otherwise: processes was 1, now 2"):
        stage.train_dpo(settings)


def test_a_warm_up_as_long_as_the_run_is_said_at_the_start(tmp_path, capsys):
    settings = settings_with_pairs(tmp_path, beta_controller="risk", dpo_max_steps=2, beta_warmup=2)
    stage.train_dpo(settings)
    assert "the risk warm-up of 2 steps is not shorter than the run" in capsys.readouterr().out


def test_a_ceiling_that_leaves_calibrated_no_room_is_said_at_the_start(tmp_path, capsys):
    settings = settings_with_pairs(tmp_path, dpo_max_steps=1)
    stage.train_dpo(settings.changed(beta=0.5))
    assert "under 4 times beta" not in capsys.readouterr().out
    stage.train_dpo(settings.changed(beta=0.6, overwrite=True))
    assert "beta_max 2.0 is under 4 times beta 0.6: calibrated hardly moves" in capsys.readouterr().out


def test_adapter_of_dpo_loads(aligned):
    student = load_student(aligned, adapter=str(paths(aligned).dpo_dir / "checkpoint-final"))
    answers = generate(student, ["number 3", "number 4"], 16, 2)
    assert len(answers) == 2 and all(answer.tokens for (answer,) in answers)
