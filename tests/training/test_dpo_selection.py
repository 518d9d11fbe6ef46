"""DPO's checkpoint is chosen by reading right answers, else by held-out pairs; the student before is a candidate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_runs import adapter_weights, dataset_rows, settings_with_pairs

from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import default_settings
from schema_student.preference.held_out import is_held_out
from schema_student.training.alignment.requests import learning_requests, validation_requests
from schema_student.training.dpo import selection, stage


def metrics_of(run_dir: Path, rows: list[dict]) -> Path:
    write_jsonl(run_dir / "training_metrics.jsonl", [{"eval_runtime": 1.0, **row} for row in rows])
    return run_dir


def reading(step: int, p_truth: float, error: float = 0.01, requests: int = 400, **more) -> dict:
    """A validation of a run that began at 50%."""
    changes = {"eval_p_truth_change": p_truth - 0.5, "eval_p_truth_error": error, "eval_fixed": 3, "eval_broken": 1}
    changes |= {"eval_valid": 0.9, "eval_valid_change": 0.0, "eval_valid_error": 0.01}
    return {"step": step, "eval_requests": requests, "eval_p_truth": p_truth, **changes, **more}


def test_the_checkpoint_of_the_greatest_likelihood_of_right_answers_is_chosen(tmp_path):
    rows = [reading(0, 0.5), reading(10, 0.53), reading(20, 0.55), reading(30, 0.54)]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20, 30])
    assert (made["checkpoint"], made["sft_was_better"]) == ("checkpoint-20", False)
    said = "P(truth) of 400 validation requests 50.0% -> 55.0% (+5.00% +- 1.00%, z = 5.0; 3 fixed, 1 broken; "
    said += "valid 90.0% -> 90.0%)"
    assert made["why"] == said and made["chosen_by"] == "P(truth) of validation requests"


def test_a_checkpoint_that_is_not_whole_is_not_chosen(tmp_path):
    rows = [reading(0, 0.5), reading(10, 0.53), reading(20, 0.55)]
    assert selection.choose_checkpoint(metrics_of(tmp_path, rows), [10])["checkpoint"] == "checkpoint-10"


@pytest.mark.parametrize(
    ("z", "requests", "chosen"), [(1.9, 300, 0), (2.1, 300, 10), (2.9, 299, 0), (3.1, 299, 10), (-5.0, 400, 0)]
)
def test_the_student_before_is_kept_where_the_aligned_one_is_not_clearly_better(z, requests, chosen, tmp_path):
    rows = [reading(0, 0.5, 0.0, requests), reading(10, 0.5 + z * 0.01, 0.01, requests)]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10])
    assert made["checkpoint"] == f"checkpoint-{chosen}" and made["sft_was_better"] == (chosen == 0)
    assert made["gate"]["z"] == pytest.approx(z) and made["gate"]["requests"] == requests
    assert made["gate"]["needed"] == (2.0 if requests >= 300 else 3.0)
    assert ("no checkpoint was better than the student before" in made["why"]) == (chosen == 0)


@pytest.mark.parametrize(("fall", "chosen"), [(0.014, 20), (0.016, 10), (-0.03, 20)])
def test_a_checkpoint_that_writes_fewer_valid_answers_is_passed_over(fall, chosen, tmp_path):
    rows = [reading(0, 0.5, 0.0), reading(10, 0.53), reading(20, 0.55, eval_valid=0.8, eval_valid_change=-fall)]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20])
    assert made["checkpoint"] == f"checkpoint-{chosen}" and not made["sft_was_better"]
    gate = made["gate"]
    assert (gate["valid_before"], gate["valid"]) == ((0.9, 0.9) if chosen == 10 else (pytest.approx(0.8 + fall), 0.8))


def test_where_all_checkpoints_write_fewer_valid_answers_the_student_before_is_kept(tmp_path):
    rows = [reading(0, 0.5, 0.0)] + [reading(step, 0.5 + step / 400, eval_valid_change=-0.02) for step in (10, 20)]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20])
    assert made["sft_was_better"] and "(fewer answers are valid)" in made["why"] and made["gate"]["fixed"] == 3


def held_out(step: int, right: int, pairs: int, loss: float = 0.7, **more) -> dict:
    return {"step": step, "eval_loss": loss, "eval_pairs": pairs, "eval_rewards/accuracies": right / pairs, **more}


@pytest.mark.parametrize("pairs", [0, 1, 4])
@pytest.mark.parametrize("requests", [0, 1, 4])
def test_too_few_to_choose_by_leave_the_last_checkpoint_and_that_is_said(tmp_path, pairs, requests):
    def row(step):
        of_pairs = held_out(step, 0, pairs, 0.7 + step / 10) if pairs else {"step": step}
        return {**(reading(step, 0.5, 0.0, requests) if requests else {}), **of_pairs}

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


def test_five_requests_choose_before_any_held_out_pairs(tmp_path):
    steps = [(0, 0.5, 0), (10, 0.9, 0), (20, 0.6, 9)]
    rows = [{**held_out(step, right, 9), **reading(step, p, 0.01, 5)} for step, p, right in steps]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20])
    assert (made["checkpoint"], made["chosen_by"]) == ("checkpoint-10", "P(truth) of validation requests")


def test_few_requests_leave_the_choice_to_enough_held_out_pairs(tmp_path):
    rows = [{**reading(step, 0.5, 0.0, 2), **held_out(step, right, 6)} for step, right in ((0, 0), (10, 4), (20, 5))]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows), [10, 20])
    assert made["checkpoint"] == "checkpoint-20" and made["chosen_by"] == "held-out pairs"
    assert made["why"] == "83.3% of 6 held-out pairs in order, as 2 validation requests are too few"


def test_where_sft_was_better_it_is_kept_and_said(tmp_path, monkeypatch, capsys):
    settings = settings_with_pairs(tmp_path, dpo_max_steps=2, dpo_eval_every=1)
    rows = iter([reading(0, 0.5, 0.0), reading(1, 0.4), reading(2, 0.45)])
    monkeypatch.setattr("schema_student.training.alignment.validation.Validation.read", lambda _: next(rows))
    stage.train_dpo(settings)
    run_dir = paths(settings).dpo_dir
    said = "no checkpoint was better than the student before (z of 2 is needed): P(truth) of 400 validation requests"
    assert f"{said} 50.0% -> 45.0%" in capsys.readouterr().out
    config = json.loads((run_dir / "run_config.json").read_text())
    assert config["sft_was_better"] and config["checkpoint"] == "checkpoint-0"
    assert read_jsonl(run_dir / "training_metrics.jsonl")[-1]["sft_was_better"]
    kept, before = adapter_weights(run_dir / "checkpoint-final"), adapter_weights(paths(settings).sft_checkpoint)
    assert all(torch.equal(kept[name], before[name]) for name in before)


def test_requests_that_validate_are_of_both_kinds_of_schemas_and_never_trained_on(tmp_path):
    like = dataset_rows()[0]
    splits = [("validation", 20), ("alignment", 200), ("train", 20), ("test_seen", 20), ("test_unseen", 20)]
    rows = [{**like, "split": split, "query": f"{split} {i}"} for split, count in splits for i in range(count)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    read = read_rows(tmp_path / "rows.jsonl", DatasetRow)
    settings = default_settings(align_requests=16)
    validating = {request.prompt: request.row.split for request in validation_requests(read, settings)}
    assert [*validating.values()].count("validation") == 8 and [*validating.values()].count("alignment") == 8
    assert all(is_held_out(prompt) for prompt, split in validating.items() if split == "alignment")
    learning = {request.prompt for request in learning_requests(read, settings)}
    assert not learning & {*validating} and len(learning) > 160
    everything = validation_requests(read, default_settings(align_requests=1000))
    assert len(everything) == 220 - len(learning)
