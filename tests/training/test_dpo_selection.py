"""The checkpoint is chosen by answers to validation requests, beyond chance; SFT itself is a candidate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_runs import (
    adapter_weights,
    dataset_rows,
    settings_with_pairs,
)

from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.preference.held_out import is_held_out
from schema_student.training.dpo import selection, stage


def metrics_of(run_dir: Path, rows: list[dict], steps: list[int]) -> Path:
    write_jsonl(run_dir / "training_metrics.jsonl", [{"eval_runtime": 1.0, **row} for row in rows])
    for step in steps:
        (run_dir / f"checkpoint-{step}").mkdir()
    return run_dir


def test_the_checkpoint_with_the_most_right_answers_is_chosen(tmp_path):
    rows = [{"step": 0, "eval_semantic": 0.5, "eval_valid": 0.9}, {"step": 10, "eval_semantic": 0.7, "eval_valid": 0.8}]
    rows += [
        {"step": 20, "eval_semantic": 0.7, "eval_valid": 0.9},
        {"step": 30, "eval_semantic": 0.6, "eval_valid": 1.0},
    ]
    chosen = selection.choose_checkpoint(metrics_of(tmp_path, rows, [10, 20, 30]))
    assert chosen == {
        "checkpoint": "checkpoint-20",
        "why": "right answers 70.0% on validation (SFT 50.0%)",
        "sft_was_better": False,
    }


def test_a_tie_with_sft_goes_to_sft_and_the_best_of_dpo_is_told(tmp_path):
    rows = [{"step": step, "eval_semantic": 0.7, "eval_valid": 0.9, "eval_loss": 0.7 - step / 100} for step in (0, 10)]
    rows[0]["eval_rewards/accuracies"], rows[1]["eval_rewards/accuracies"] = 0.0, 0.8
    rows.append({**rows[1], "step": 20, "eval_semantic": 0.6})
    chosen = selection.choose_checkpoint(metrics_of(tmp_path, rows, [10, 20]))
    assert chosen["sft_was_better"] and chosen["checkpoint"] == "checkpoint-0"
    scores = "right answers 70.0% on validation (SFT 70.0%), valid ones 90.0% on validation (SFT 90.0%)"
    assert chosen["why"] == f"no DPO checkpoint was better than SFT: {scores}"


@pytest.mark.parametrize(("fixed", "broken", "chosen"), [(3, 1, 0), (5, 0, 10), (9, 2, 10), (9, 4, 0)])
def test_a_gain_that_chance_explains_leaves_the_sft_student(fixed, broken, chosen, tmp_path):
    then, now = "0" * fixed + "1" * (20 - fixed), "1" * (20 - broken) + "0" * broken
    rows = [
        {"step": step, "eval_semantic": bits.count("1") / 20, "eval_valid": 1.0, "eval_right": bits}
        for step, bits in ((0, then), (10, now))
    ]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows, [10]))
    assert made["checkpoint"] == f"checkpoint-{chosen}" and made["sft_was_better"] == (chosen == 0)
    assert f"{fixed} fixed, {broken} broken" in made["why"] and ("beyond chance" in made["why"]) == (chosen == 0)


def test_where_sft_was_better_it_is_kept_and_said(tmp_path, monkeypatch, capsys):
    settings = settings_with_pairs(tmp_path, dpo_max_steps=2, dpo_eval_every=1)
    scores = iter([9, 5, 8])

    def judged(*_):
        right = next(scores)
        return [(True, i < right) for i in range(10)]

    monkeypatch.setattr(selection, "grade_answers", judged)
    stage.train_dpo(settings)
    run_dir = paths(settings).dpo_dir
    said = "no DPO checkpoint was better than SFT: right answers 80.0% on validation (SFT 90.0%)"
    assert said in capsys.readouterr().out
    config = json.loads((run_dir / "run_config.json").read_text())
    assert config["sft_was_better"] and config["checkpoint"] == "checkpoint-0"
    assert read_jsonl(run_dir / "training_metrics.jsonl")[-1]["sft_was_better"]
    kept, before = adapter_weights(run_dir / "checkpoint-final"), adapter_weights(paths(settings).sft_checkpoint)
    assert all(torch.equal(kept[name], before[name]) for name in before)


def test_requests_that_choose_the_checkpoint_are_of_both_kinds_of_schemas_and_never_trained_on(tmp_path):
    like = dataset_rows()[0]
    splits = [("validation", 20), ("alignment", 200), ("train", 20), ("test_seen", 20), ("test_unseen", 20)]
    rows = [{**like, "split": split, "query": f"{split} {i}"} for split, count in splits for i in range(count)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    asked = [row["prompt"] for row in selection.read_requests(tmp_path / "rows.jsonl", 16, "compact")]
    of_seen = [prompt for prompt in asked if "Request: alignment" in prompt]
    assert len([prompt for prompt in asked if "Request: validation" in prompt]) == 7  # every third of 20
    assert 5 <= len(of_seen) <= 8 and len(of_seen) + 7 == len(asked)
    assert all(is_held_out(prompt) for prompt in of_seen)
