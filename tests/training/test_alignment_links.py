"""A link of an alignment: what it leaves, what it learns, its guard, its choice, resume; and the chain of several."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from alignment_runs import settings_with_requests
from training_runs import adapter_weights, killed_in_step, same_run

from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.core.paths import final_adapter, paths
from schema_student.core.settings import default_settings
from schema_student.student.reading import Reading
from schema_student.training import chain
from schema_student.training.alignment import selection, stage, validation


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    settings = settings_with_requests(tmp_path_factory.mktemp("link"))
    stage.train_link("expected_reward", settings)
    return settings


def test_a_link_leaves_what_sft_leaves_and_says_what_it_began_with(aligned):
    where = paths(aligned)
    run_dir = where.link_dir("expected_reward")
    config = read_json(run_dir / "run_config.json")
    assert config["stage"] == "expected_reward" and config["adapter"] == str(where.sft_checkpoint)
    assert config["checkpoint"] == "checkpoint-6" and not config["sft_was_better"] and config["stopped"] == ""
    assert config["gate"]["z"] > config["gate"]["needed"] == selection.VERY_CLEAR
    rows = read_jsonl(run_dir / "training_metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    read = [row for row in rows if "eval_p_truth" in row]
    assert [row["step"] for row in read] == [0, 3, 6] and read[0]["eval_p_truth_change"] == 0
    assert read[-1]["eval_p_truth"] > read[0]["eval_p_truth"]
    meta = read_json(run_dir.with_name(f"{run_dir.name}.meta.json"))
    assert set(meta["inputs"]) == {"d_03_dataset.jsonl", "adapter_model.safetensors"}
    assert final_adapter(aligned) == str(run_dir / "checkpoint-final")


def test_a_killed_link_goes_on_to_the_same_adapter(aligned, tmp_path, monkeypatch):
    settings = settings_with_requests(tmp_path)
    with killed_in_step(monkeypatch, 5):
        stage.train_link("expected_reward", settings)
    stage.train_link("expected_reward", settings)
    same_run(*(paths(each).link_dir("expected_reward") for each in (aligned, settings)))


def test_a_fall_of_the_likelihood_of_right_answers_stops_it_and_the_student_before_is_kept(aligned, tmp_path):
    settings = settings_with_requests(
        tmp_path, expected_reward_learning_rate=0.5, expected_reward_eval_every=1, expected_reward_max_steps=9
    )
    stage.train_link("expected_reward", settings)
    run_dir = paths(settings).link_dir("expected_reward")
    config = read_json(run_dir / "run_config.json")
    assert config["stopped"].startswith("P(truth) of validation requests fell by") and config["sft_was_better"]
    steps = [row["step"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    assert len(steps) < 9
    kept, before = (adapter_weights(each) for each in (run_dir / "checkpoint-final", paths(settings).sft_checkpoint))
    assert all(torch.equal(kept[name], before[name]) for name in before)


def validator_of(requests: int) -> validation.Validation:
    rows = [{"key": "s", "answers": [], "request": i} for i in range(requests)]
    return validation.Validation(SimpleNamespace(student=None), rows, default_settings(align_stop=2.0))


def test_what_reading_leaves_open_is_answered_and_a_fall_of_valid_answers_stops_it(monkeypatch):
    greedy, open_ones = Reading(0.9, -0.1, 0), Reading(0.2, -2.0, 0)
    monkeypatch.setattr(validation, "read_rows_of", lambda rows, batches: [greedy] * 4 + [open_ones] * 6)
    answers = iter([[True] * 5 + [False], [True] * 3 + [False] * 3, [False] * 6])
    asked = []
    monkeypatch.setattr(
        validation, "grade_answers", lambda _, rows, __: asked.append(rows) or [(ok, False) for ok in next(answers)]
    )
    validator = validator_of(10)
    first, fewer, fallen = (validator.read() | {"fallen": validator.fallen} for _ in range(3))
    assert asked == [[4, 5, 6, 7, 8, 9]] * 3
    assert [each["eval_valid"] for each in (first, fewer, fallen)] == pytest.approx([0.9, 0.7, 0.4])
    assert fewer["eval_valid_change"] == pytest.approx(-0.2)  # 2 of 10: variance 1.6 / 9, over 10
    assert fewer["eval_valid_error"] == pytest.approx((1.6 / 90) ** 0.5) and not fewer["fallen"]
    assert fallen["fallen"] == "the share of valid answers to validation requests fell by 0.5000 +- 0.1667"


def test_a_fall_within_its_error_stops_nothing(monkeypatch):
    def reads(*p_truth):
        return [Reading(p, -0.1, 0) for p in p_truth]

    validator = validator_of(5)
    monkeypatch.setattr(validation, "grade_answers", lambda *_: [])
    found = iter([reads(0.5, 0.6, 0.7, 0.8, 0.65), reads(0.4, 0.7, 0.6, 0.8, 0.65), reads(0.4, 0.5, 0.6, 0.69, 0.55)])
    monkeypatch.setattr(validation, "read_rows_of", lambda rows, batches: next(found))
    first, noisy, fallen = (validator.read() | {"fallen": validator.fallen} for _ in range(3))
    assert (first["fallen"], noisy["fallen"]) == ("", "") and first["eval_p_truth"] == pytest.approx(0.65)
    assert noisy["eval_p_truth_change"] == pytest.approx(-0.02) and noisy["eval_p_truth_error"] > 0.03
    assert fallen["fallen"] == "P(truth) of validation requests fell by 0.1020 +- 0.0020"
    again = validator_of(0)
    again.load_state_dict(validator.state_dict())
    assert again.fallen == validator.fallen and again.start == validator.start


def test_links_begin_with_the_adapter_of_the_link_before(tmp_path):
    settings = settings_with_requests(tmp_path, align=["expected_reward", "dpo"])
    where = paths(settings)
    first, second = chain.links_of(settings)
    assert (first.name, second.name) == ("expected_reward", "dpo")
    assert paths(first.settings).sft_checkpoint == where.sft_checkpoint
    assert paths(second.settings).sft_checkpoint == where.link_checkpoint("expected_reward")
    assert paths(second.settings).dpo_dir == where.dpo_dir and paths(second.settings).pairs == where.pairs
    assert chain.begin_with(settings, "dpo").student.adapter == str(where.link_checkpoint("expected_reward"))
    own = settings.changed(adapter=str(where.sft_checkpoint))
    assert chain.begin_with(own, "dpo") == own


def test_the_control_is_sft_that_goes_on_for_as_many_steps_at_the_best_rate(tmp_path):
    settings = settings_with_requests(tmp_path, align=["expected_reward"], control_learning_rates=[1e-5, 0.002])
    chain.train_control(settings)
    run_dir = paths(settings).link_dir("control")
    config = read_json(run_dir / "run_config.json")
    assert (config["stage"], config["control_of"], config["steps"]) == ("control", "expected_reward", 6)
    logs = {rate: read_jsonl(run_dir / f"rate-{rate}" / "training_metrics.jsonl") for rate in ("1e-05", "0.002")}
    rows = [(rate, row) for rate, log in logs.items() for row in log if row["step"] and "eval_p_truth" in row]
    rate, best = max(rows, key=lambda each: each[1]["eval_p_truth"])
    assert rate == "0.002" and (config["rate"], config["checkpoint"]) == (0.002, f"checkpoint-{best['step']}")
    assert logs["1e-05"][0]["eval_p_truth"] == logs["0.002"][0]["eval_p_truth"]  # each begins with the same student
    change = f"{best['eval_p_truth_change']:+.2%} +- {best['eval_p_truth_error']:.2%}"
    assert config["why"] == (
        f"P(truth) of {best['eval_requests']} validation requests {best['eval_p_truth']:.1%} ({change}) "
        "at a learning rate of 0.002"
    )
    assert (
        config["requests"] > 20
        and config["left_out"] == {}
        and config["adapter"] == str(paths(settings).sft_checkpoint)
    )
    folders = ("checkpoint-final", f"rate-0.002/{config['checkpoint']}")
    published, trained = (adapter_weights(run_dir / name) for name in folders)
    assert all(torch.equal(published[name], trained[name]) for name in trained)
    assert read_jsonl(run_dir / "training_metrics.jsonl") == logs["0.002"]


def test_each_round_of_dpo_has_pairs_of_the_student_before_it_and_the_last_one_the_run_s_name(aligned):
    settings = aligned.changed(align=["expected_reward", "dpo"], dpo_rounds=3)
    first, *rounds = chain.links_of(settings)
    where = [paths(link.settings) for link in rounds]
    runs = paths(aligned).run_dir.parent
    assert [link.name for link in (first, *rounds)] == ["expected_reward", "dpo", "dpo", "dpo"]
    assert [each.dpo_dir.name for each in where] == ["student-round1-dpo", "student-round2-dpo", "student-dpo"]
    begins = ["student-expected_reward", "student-round1-dpo", "student-round2-dpo"]
    assert [each.sft_checkpoint for each in where] == [runs / name / "checkpoint-final" for name in begins]
    assert len({each.pairs for each in where}) == 3 and {each.dataset for each in where} == {paths(aligned).dataset}
    assert chain.begin_with(settings, "dpo") == rounds[-1].settings
    (alone,) = chain.links_of(aligned.changed(align=["dpo"]))
    assert paths(alone.settings) == paths(aligned)
