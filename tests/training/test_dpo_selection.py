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


def metrics_of(run_dir: Path, rows: list[dict]) -> Path:
    write_jsonl(run_dir / "training_metrics.jsonl", [{"eval_runtime": 1.0, **row} for row in rows])
    return run_dir


def answers(step: int, right: int, valid: float, **more) -> dict:
    """A validation on 40 requests."""
    bits = "1" * right + "0" * (40 - right)
    return {"step": step, "eval_semantic": right / 40, "eval_valid": valid, "eval_right": bits, **more}


def test_the_checkpoint_with_the_most_right_answers_is_chosen(tmp_path):
    rows = [answers(0, 20, 0.9), answers(10, 28, 0.8), answers(20, 28, 0.9), answers(30, 24, 1.0)]
    chosen = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20, 30])
    assert chosen == {
        "checkpoint": "checkpoint-20",
        "why": "right answers 70.0% on validation (SFT 50.0%); 8 fixed, 0 broken",
        "chosen_by": "validation requests",
        "sft_was_better": False,
    }


def test_a_checkpoint_that_is_not_whole_is_not_chosen(tmp_path):
    rows = [answers(0, 20, 0.9), answers(10, 28, 0.8), answers(20, 28, 0.9)]
    assert selection.choose_checkpoint(metrics_of(tmp_path, rows), [10])["checkpoint"] == "checkpoint-10"


def test_a_tie_with_sft_goes_to_sft_and_the_best_of_dpo_is_told(tmp_path):
    rows = [answers(step, 28, 0.9, eval_loss=0.7 - step / 100) for step in (0, 10)]
    rows[0]["eval_rewards/accuracies"], rows[1]["eval_rewards/accuracies"] = 0.0, 0.8
    rows.append({**rows[1], "step": 20, "eval_semantic": 0.6})
    chosen = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20])
    assert chosen["sft_was_better"] and chosen["checkpoint"] == "checkpoint-0"
    scores = "right answers 70.0% on validation (SFT 70.0%), valid ones 90.0% on validation (SFT 90.0%)"
    assert chosen["why"] == f"no DPO checkpoint was better than SFT: {scores}"


def held_out(step: int, right: int, pairs: int, loss: float = 0.7, **more) -> dict:
    return {"step": step, "eval_loss": loss, "eval_pairs": pairs, "eval_rewards/accuracies": right / pairs, **more}


@pytest.mark.parametrize("pairs", [0, 1, 4])
@pytest.mark.parametrize("requests", [0, 1, 4])
def test_too_few_to_choose_by_leave_the_last_checkpoint_and_that_is_said(tmp_path, pairs, requests):
    def row(step):
        of_pairs = held_out(step, 0, pairs, 0.7 + step / 10) if pairs else {"step": step}
        return of_pairs | ({"eval_semantic": 0.0, "eval_valid": 0.0, "eval_right": "0" * requests} if requests else {})

    chosen = selection.choose_checkpoint(metrics_of(tmp_path, [row(0), row(10), row(20)]), [10, 20])
    assert (chosen["checkpoint"], chosen["sft_was_better"], chosen["chosen_by"]) == ("checkpoint-20", False, "nothing")
    plural = ["s" if n != 1 else "" for n in (requests, pairs)]
    few = f"{requests} validation request{plural[0]} and {pairs} held-out pair{plural[1]} are too few to choose by"
    none = "there are no validation requests, nor held-out pairs"
    assert chosen["why"] == f"the last one: {few + ' (5 of one kind are needed)' if requests or pairs else none}"


@pytest.mark.parametrize(("right", "pairs", "chosen"), [(5, 5, 10), (1, 5, 10), (0, 5, 0), (3, 10, 10), (1, 10, 0)])
def test_held_out_pairs_choose_and_keep_sft_only_where_they_fall_the_wrong_way_beyond_chance(
    tmp_path, right, pairs, chosen
):
    rows = [held_out(0, 0, pairs, 0.69), held_out(10, right, pairs, 0.9), held_out(20, right, pairs, 1.0)]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20])
    assert made["checkpoint"] == f"checkpoint-{chosen}" and made["sft_was_better"] == (chosen == 0)
    assert f"{right / pairs:.1%} of {pairs} held-out pairs in order" in made["why"]


def test_few_requests_leave_the_choice_to_enough_held_out_pairs(tmp_path):
    few = {"eval_semantic": 0.0, "eval_valid": 0.0, "eval_right": "00"}
    rows = [held_out(0, 0, 6, **few), held_out(10, 4, 6, **few), held_out(20, 5, 6, **few)]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20])
    assert made["checkpoint"] == "checkpoint-20" and made["chosen_by"] == "held-out pairs"
    assert made["why"] == "83.3% of 6 held-out pairs in order, as 2 validation requests are too few"


@pytest.mark.parametrize(("fixed", "broken", "chosen"), [(3, 1, 0), (5, 0, 10), (9, 2, 10), (9, 4, 0)])
def test_a_gain_that_chance_explains_leaves_the_sft_student(fixed, broken, chosen, tmp_path):
    then, now = "0" * fixed + "1" * (20 - fixed), "1" * (20 - broken) + "0" * broken
    rows = [
        {"step": step, "eval_semantic": bits.count("1") / 20, "eval_valid": 1.0, "eval_right": bits}
        for step, bits in ((0, then), (10, now))
    ]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10])
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
