"""What stops a DPO run or raises an alarm: values that are not finite, margins that stay 0, chosen answers falling."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import tiny
import torch
from training_runs import (
    SHORT,
    adapter_weights,
    dataset_rows,
    pair_rows,
    settings_with_pairs,
)

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, read_object, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import resolve_auto
from schema_student.training.dpo import beta as betas
from schema_student.training.dpo import encoding, objective, reference, stage
from schema_student.training.dpo.losses import dpo_losses, dpo_margins


def test_a_margin_that_is_not_finite_stops_the_run_before_the_controller(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path)
    real = dpo_margins

    def spoiled(*parts):
        margins = real(*parts)
        return torch.cat([margins[:1] * float("nan"), margins[1:]]) if parts[0].requires_grad else margins

    monkeypatch.setattr(objective, "dpo_margins", spoiled)
    with pytest.raises(UserError, match=r"margin is not finite at step 1 of dpo_pairs.jsonl:\d+;"):
        stage.train_dpo(settings)
    assert not (paths(settings).dpo_dir / "margins.jsonl").exists()


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step_and_rows(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path, **SHORT)
    real, calls = dpo_losses, []

    def spoiled(margins, beta):
        calls.append(margins.requires_grad)
        return real(margins, beta) / (sum(calls) < 3)

    monkeypatch.setattr(objective, "dpo_losses", spoiled)
    with pytest.raises(UserError, match=r"loss is not finite at step 3 of (dpo_pairs.jsonl:\d+(, )?){4};"):
        stage.train_dpo(settings)
    assert [row["step"] for row in read_jsonl(paths(settings).dpo_dir / "training_metrics.jsonl")][-1] == 2


@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_a_reference_that_is_not_finite_is_refused_with_its_rows(tmp_path, monkeypatch, value):
    settings = settings_with_pairs(tmp_path)
    real = encoding.credited_logps

    def spoiled(logps, batch):
        bad = torch.tensor([name.endswith(":3") for name in batch["names"]] * 2)
        return real(logps, batch).masked_fill(bad, float(value))

    monkeypatch.setattr(reference, "credited_logps", spoiled)
    with pytest.raises(UserError, match=r"reference are not finite for dpo_pairs.jsonl:3 \(1 in all\)"):
        stage.train_dpo(settings)


def test_a_validation_that_is_not_finite_stops_the_run_with_its_step(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path, **SHORT)
    real = objective.DPO.margins_of

    def spoiled(self, batch):
        margins, *parts = real(self, batch)
        return margins * (float("nan") if self.logps and not torch.is_grad_enabled() else 1), *parts

    monkeypatch.setattr(objective.DPO, "margins_of", spoiled)
    with pytest.raises(UserError, match=r"eval_loss, eval_margin not finite in the validation at step 3;"):
        stage.train_dpo(settings)


def test_margins_that_stay_exactly_0_stop_the_run(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path, **SHORT)
    real = dpo_margins
    monkeypatch.setattr(objective, "dpo_margins", lambda *parts: real(*parts) * 0)  # as if all labels were masked
    for _ in range(2):  # resumed after step 3 it counts on
        with pytest.raises(UserError, match=r"all margins are exactly 0 at step 4 and the 2 before.*a mask is wrong"):
            stage.train_dpo(settings)
    assert len(read_jsonl(paths(settings).dpo_dir / "margins.jsonl")) == 3


def alike_rows() -> list[dict]:
    """Pairs that differ in one character: pushing the rejected answer down takes the chosen one along."""
    return [{**row, "chosen": row["rejected"].replace('"}', '0"}')} for row in pair_rows()]


def test_chosen_answers_that_become_less_likely_raise_an_alarm_once_and_are_logged(tmp_path, capsys):
    settings = settings_with_pairs(tmp_path, **SHORT, dpo_chosen_fall=1e-4, beta_controller="fixed")
    write_jsonl(paths(settings).pairs, alike_rows())
    stage.train_dpo(settings)
    state = json.loads((paths(settings).dpo_dir / "checkpoint-6" / "stage_state.json").read_text())
    rows = [row for row in read_jsonl(paths(settings).dpo_dir / "training_metrics.jsonl") if "loss" in row]
    alarms = [row.get("alarm/chosen_fall") for row in rows]
    assert min(filter(None, alarms)) > 1e-4
    falls = [step for step, alarm in enumerate(alarms) if alarm and (step == 0 or not alarms[step - 1])]
    assert len(falls) < len(list(filter(None, alarms)))  # else "once" could not be told from "each step"
    assert state["fallen"] == bool(alarms[-1])  # so that a resumed run does not raise it again
    printed = capsys.readouterr().out
    assert printed.count("ALARM: at step") == len(falls)
    assert "--dpo-positive-weight" in printed


@pytest.mark.parametrize("guard", ["dpo_sft_weight", "dpo_positive_weight"])
def test_the_guards_keep_chosen_answers_likelier(tmp_path, guard):
    ends = []
    for weight in (0.0, 5.0):
        settings = settings_with_pairs(tmp_path / str(weight), **SHORT, beta_controller="fixed", **{guard: weight})
        write_jsonl(paths(settings).pairs, alike_rows())
        stage.train_dpo(settings)
        rows = [row for row in read_jsonl(paths(settings).dpo_dir / "training_metrics.jsonl") if "loss" in row]
        ends.append(sum(row["logps/chosen"] for row in rows[-2:]))
        assert betas.replay_run(paths(settings).dpo_dir) == 6  # the controller is fed the margin itself
    assert ends[1] > ends[0]


@pytest.mark.parametrize(("pairs", "processes", "advice"), [(11, 1, 5), (23, 2, 5), (1, 1, 1)])
def test_fewer_pairs_than_a_step_takes_are_refused_with_the_batch_that_would_do(
    tmp_path, monkeypatch, pairs, processes, advice
):
    from schema_student.training.dpo import alignment

    monkeypatch.setattr(alignment, "launched_count", lambda: processes)
    monkeypatch.setattr(alignment, "train_only", lambda *_: None)
    monkeypatch.setattr(alignment.batching, "takes_trees", lambda *_: True)
    student = SimpleNamespace(tokenizer=tiny.tiny_tokenizer(), model=None)
    monkeypatch.setattr(alignment, "load_student", lambda *_, **__: student)
    given = {"dpo_batch_size": 6, "dpo_gradient_accumulation": 2, "rejected_cut": False}
    settings = resolve_auto(tiny.tiny_settings(tmp_path, **given), "embedded")
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, pair_rows(pairs, 3))
    step = 12 * processes
    said = rf"pairs\.jsonl has {pairs} pairs to train on, fewer than the {step} of an optimizer step: "
    with pytest.raises(UserError, match=rf"{said}give --dpo-batch-size {advice}, or more pairs"):
        alignment.align(settings, path, None, tmp_path, tmp_path / "run")


@pytest.mark.parametrize("trainer", ["own", "trl"])
def test_a_run_that_makes_the_right_answers_less_likely_stops_and_goes_back(tmp_path, trainer):
    """Its pairs reject what validation asks for: margins and loss get better all the while."""
    fixed = {"trainer": trainer, "beta_controller": "fixed", "dpo_sft_weight": 0.0}
    settings = settings_with_pairs(tmp_path, **{**SHORT, **fixed, "dpo_max_steps": 12, "dpo_learning_rate": 0.03})
    wrong = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pair_rows()]
    write_jsonl(paths(settings).pairs, wrong)
    head = {**dataset_rows()[0], "split": "validation"}
    asked = [{**head, "query": f"number {i}", "ast_json": json.dumps({"n": i})} for i in range(8)]
    write_jsonl(paths(settings).dataset, asked)
    final = stage.train_dpo(settings)
    run_dir = paths(settings).dpo_dir
    config, rows = read_object(run_dir / "run_config.json"), read_jsonl(run_dir / "training_metrics.jsonl")
    assert config["stopped"].startswith("P(truth) of validation requests fell by ")
    assert max(row["step"] for row in rows if "loss" in row) == 3  # the first validation after the start
    assert rows[-2]["eval_loss"] < rows[0]["eval_loss"]
    before, after = (adapter_weights(folder) for folder in (paths(settings).sft_checkpoint, final))
    assert config["sft_was_better"] and all(torch.equal(before[name], after[name]) for name in before)
