"""Alignment by samples: RLOO, GRPO, the best of k, hard requests; requests without answers, resume, two processes."""

from __future__ import annotations

import pytest
import tiny
import torch
from sampled_runs import NUMBER, aligned, beside, student_of_four_numbers
from training_runs import adapter_weights, killed_in_step, metrics, same_run
from two_processes import run_in_two_processes

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import resolve_auto
from schema_student.schema.compiling import compile_schema
from schema_student.student.batching import Ids
from schema_student.student.reading import Reading
from schema_student.training.alignment import chosen_rows, policy_gradient, sampled, stage
from schema_student.training.alignment.objective import Alignment
from schema_student.training.batches import Batches
from schema_student.training.loop import Step
from schema_student.training.rl.groups import Group, Prompt, summarize_groups
from schema_student.training.rl.rewards import Reward, Task


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return student_of_four_numbers(tmp_path_factory.mktemp("rl"))


@pytest.mark.parametrize("name", ["rloo", "grpo", "rft", "hard_sft"])
def test_right_answers_become_likelier(student, name, tmp_path):
    steps, read = aligned(beside(student, tmp_path, align_stop=1000.0), name)  # valid answers may become fewer
    assert len(steps) == 4 and read[-1]["eval_p_truth"] > 2 * read[0]["eval_p_truth"]


def test_a_step_logs_what_its_samples_were_worth(student, tmp_path):
    steps, _ = aligned(beside(student, tmp_path, rl_max_steps=1), "rloo")
    row = steps[0]
    assert row["reward"] == pytest.approx(row["right"] + 0.3 * (row["valid"] - row["right"]))
    assert 0 < row["groups_vary"] <= 1 and row["reward_std"] > 0 and 1 <= row["answer_tokens"] <= 4


def test_metrics_are_means_over_groups_and_answers():
    groups = [
        {"values": [1.0, 0.0], "valid": [True, False], "right": [True, False], "tokens": [2, 4]},
        {"values": [1.0, 1.0], "valid": [True, True], "right": [], "tokens": [3, 3]},
    ]
    expected = {"reward": 0.75, "reward_std": 0.25, "groups_vary": 0.5, "valid": 0.75, "answer_tokens": 3, "right": 0.5}
    assert summarize_groups(groups) == expected


def test_requests_that_nobody_answered_are_learned_from_by_the_schemas_verdict(student, tmp_path):
    asked = tmp_path / "asked.jsonl"
    write_jsonl(asked, [{"schema": NUMBER, "query": f"number {i}"} for i in range(30, 50)])
    open_only = {"rl_prompts": 0, "requests": str(asked), "align_stop": 1000.0}  # P(3) may well fall
    settings = beside(student, tmp_path, **open_only, rl_max_steps=7, rl_learning_rate=0.003, rl_batch_size=4)
    steps, _ = aligned(settings, "rloo")
    assert all("right" not in row and row["reward"] == row["valid"] for row in steps)
    assert sum(row["valid"] for row in steps[-3:]) > 3 * (steps[0]["valid"] + 0.2)


@pytest.mark.parametrize("name", ["rloo", "rft"])
def test_a_run_that_was_stopped_ends_like_an_undisturbed_one(student, name, tmp_path, monkeypatch):
    undisturbed, stopped = (beside(student, tmp_path / folder) for folder in "ab")
    stage.train_link(name, undisturbed)
    with killed_in_step(monkeypatch, 4):
        stage.train_link(name, stopped)
    stage.train_link(name, stopped)
    same_run(*(paths(settings).link_dir(name) for settings in (undisturbed, stopped)))


def test_the_best_samples_are_drawn_once_and_kept(student, tmp_path, monkeypatch):
    settings = beside(student, tmp_path)
    with killed_in_step(monkeypatch, 1):
        stage.train_link("rft", settings)
    rows = read_jsonl(paths(settings).link_dir("rft") / chosen_rows.ROWS)
    assert rows and {row["text"] for row in rows} == {"3"} and all(row["count"] >= 1 for row in rows)
    monkeypatch.setattr(chosen_rows, "draw_groups", None)
    stage.train_link("rft", settings)


def test_two_processes_equal_one(student, tmp_path):
    one, two = (beside(student, tmp_path / folder, rl_max_steps=2) for folder in "ab")
    stage.train_link("rloo", one)
    config = tmp_path / "two.json"
    write_json(config, {**two.flat(), "rl_gradient_accumulation": 1, "align": ["rloo"]})
    run_in_two_processes("scripts/align_student.py", "--config", str(config))
    for ours, theirs in zip(*(metrics(paths(each).link_dir("rloo")) for each in (one, two)), strict=True):
        numbers = {name for name, value in ours.items() if isinstance(value, float)}
        assert {n: theirs[n] for n in numbers} == pytest.approx({n: ours[n] for n in numbers}, rel=1e-3, abs=1e-5)
    mine, others = (adapter_weights(paths(each).link_dir("rloo") / "checkpoint-2") for each in (one, two))
    assert all(torch.allclose(mine[name], others[name], atol=1e-3) for name in mine)


# ---------------------------------------------------------------------------------------------------------------------
# Which requests


def alignment_of(settings, tmp_path, rows=()):
    """What an objective is made of, of the tiny student without an adapter."""
    resolved = resolve_auto(settings, "gemma")
    loaded = tiny.tiny_student(tmp_path)
    batches = Batches.of(loaded, resolved, 4, True)
    return Alignment(resolved, batches, rows, None, tmp_path)


def rows_of(count):
    prompt = Prompt("p", [1], Task(compile_schema(NUMBER), 3))
    return [
        {"answers": [Ids([1], [2])], "name": str(i), "key": "s", "request": None, "prompt": prompt}
        for i in range(count)
    ]


def test_requests_that_would_be_answered_always_or_never_right_are_left_out(student, tmp_path, monkeypatch):
    likelihoods = [0.0, 0.02, 0.03, 0.9, 0.98, 1.0]
    monkeypatch.setattr(sampled, "sampled_rows", lambda alignment: rows_of(6))
    monkeypatch.setattr(sampled, "read_rows_of", lambda rows, batches: [Reading(p, 0.0, 0) for p in likelihoods])
    settings = student.changed(rl_least_p=0.02, rl_most_p=0.98)
    kept = sampled.select_prompts(alignment_of(settings, tmp_path))
    assert [row["name"] for row in kept] == ["1", "2", "3", "4"]
    with pytest.raises(UserError, match="all requests would be answered alike"):
        sampled.select_prompts(alignment_of(settings.changed(rl_least_p=0.97, rl_most_p=0.975), tmp_path))


def test_a_known_request_of_the_tests_is_not_sampled_and_answers_that_are_known_are_read(student, tmp_path):
    asked = tmp_path / "asked.jsonl"
    queries = [{"query": "number 201"}, {"query": "number 101"}, {"query": "new", "answer": 4}, {"query": "other"}]
    write_jsonl(asked, [{"schema_id": "s", **row} for row in queries])
    settings = student.changed(requests=str(asked), rl_prompts=0)
    rows = sampled.sampled_rows(alignment_of(settings, tmp_path))
    assert [(row["prompt"].task.target, len(row["answers"])) for row in rows] == [(4, 1), (None, 0)]
    assert all("Date: 2026-01-31" in row["prompt"].text for row in rows)


def test_no_request_at_all_is_refused(student, tmp_path):
    with pytest.raises(UserError, match="give --rl-prompts above 0, or --requests FILE"):
        sampled.sampled_rows(alignment_of(student.changed(rl_prompts=0), tmp_path))


def test_hard_requests_are_those_below_the_limit_and_a_share_of_others(student, tmp_path, monkeypatch):
    likelihoods = [0.1] * 6 + [0.8] * 6
    monkeypatch.setattr(chosen_rows, "read_rows_of", lambda rows, batches: [Reading(p, 0.0, 0) for p in likelihoods])
    made = alignment_of(student.changed(hard_below=0.8, hard_replay=0.25), tmp_path, rows_of(12))
    names = [int(row["name"]) for row in chosen_rows.HardSFT(made).rows]
    assert names[:6] == [0, 1, 2, 3, 4, 5] and len(names) == 8 and all(name > 5 for name in names[6:])


def test_the_best_of_k_is_sought_where_greedy_decoding_is_wrong_or_nobody_knows(student, tmp_path, monkeypatch):
    rows = [*rows_of(3), {**rows_of(1)[0], "name": "open", "answers": []}]
    sure, unsure = Reading(0.9, -0.1, 0), Reading(0.3, -1.2, 0)
    monkeypatch.setattr(chosen_rows, "sampled_rows", lambda alignment: rows)
    monkeypatch.setattr(chosen_rows, "read_rows_of", lambda known, batches: [sure, unsure, sure][: len(known)])
    objective = chosen_rows.RFT.__new__(chosen_rows.RFT)
    assert [row["name"] for row in objective.open_rows(alignment_of(student, tmp_path))] == ["1", "open"]


def test_the_best_answer_is_the_right_one_that_was_drawn_most_often():
    values = [0.3, 0.3, 0.3, 1.0, 1.0, 1.0]
    rewards = [Reward(value, True, value == 1.0, value == 1.0) for value in values]
    group = Group([], ["a", "a", "a", "b", "c", "c"], rewards)
    assert chosen_rows.best_of(group) == ("c", 2)
    assert chosen_rows.best_of(Group([], ["a"], rewards[:1])) == ("", 0)


# ---------------------------------------------------------------------------------------------------------------------
# The loss of a step


def objective_of(settings, tmp_path, monkeypatch, kind=policy_gradient.RLOO):
    monkeypatch.setattr(policy_gradient, "select_prompts", lambda alignment: rows_of(2))
    alignment = alignment_of(settings, tmp_path)
    alignment.batches.student.model.requires_grad_(True)
    return kind(alignment)


def group_of(values, first):
    answers = [Ids([10, 11, 12, first], [20 + i, 21, 22 + first][: 2 + i % 2]) for i in range(len(values))]
    return Group(answers, ["x"] * len(values), [Reward(value, True, False, False) for value in values])


def gradient_of(objective, loss):
    model = objective.batches.student.model
    loss.backward()
    found = torch.cat([weight.grad.reshape(-1) for weight in objective.weights])
    model.zero_grad()
    return found


@pytest.mark.parametrize("kind", [policy_gradient.RLOO, policy_gradient.GRPO])
def test_answers_cut_into_parts_have_the_gradient_and_the_loss_of_all_together(student, tmp_path, monkeypatch, kind):
    objective = objective_of(student, tmp_path, monkeypatch, kind)
    groups = [group_of([1.0, 0.0, 0.4, 0.4], 5), group_of([1.0, 0.0, 0.0, 0.0], 6)]
    whole = objective.batch_loss(groups, 8.0)
    expected = gradient_of(objective, whole)
    objective.batches = Batches(objective.batches.student, 4, 12, True, None)
    parts = objective.batch_loss(groups, 8.0)
    assert float(parts.detach()) == pytest.approx(float(whole.detach()), abs=1e-6)
    assert torch.allclose(gradient_of(objective, parts), expected, atol=1e-6) and float(expected.norm()) > 0


def test_a_group_whose_answers_are_worth_the_same_is_not_computed(student, tmp_path, monkeypatch):
    objective = objective_of(student, tmp_path, monkeypatch)
    same, other = group_of([0.3] * 4, 5), group_of([1.0, 0.0, 0.0, 0.0], 6)
    answers, advantages = objective.score([same, other])
    assert answers == other.answers and advantages == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])
    loss = objective.batch_loss([same], 4.0)
    assert float(gradient_of(objective, loss).abs().max()) == 0 and float(loss.detach()) == 0


def test_kl_holds_the_student_near_the_one_before(student, tmp_path, monkeypatch):
    objective = objective_of(student.changed(rl_kl_weight=0.5), tmp_path, monkeypatch)
    same = group_of([0.3] * 4, 5)
    before = float(objective.batch_loss([same], 4.0).detach())
    with torch.no_grad():
        for weight in objective.weights:
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    objective.kl = []
    loss = objective.batch_loss([same], 4.0)
    assert before == pytest.approx(0, abs=1e-6)
    assert float(loss.detach()) == pytest.approx(0.5 * sum(objective.kl) / 4, rel=1e-5) and sum(objective.kl) > 0.1
    assert float(gradient_of(objective, loss).norm()) > 0


def test_the_teachers_answer_stands_in_the_group_of_a_request_whose_answer_is_known(student, tmp_path, monkeypatch):
    objective = objective_of(student.changed(rl_teacher_in_group=True, rl_samples=2), tmp_path, monkeypatch)
    unknown = {**rows_of(1)[0], "prompt": Prompt("q", [1], Task(compile_schema(NUMBER)))}
    batch = objective.collate([rows_of(1)[0], unknown])
    assert objective.loss_denominator(batch) == 5
    wrong = [Reward(0.0, False, False, False)] * 2
    drawn = [Group([Ids([1], [7]), Ids([1], [8])], ["x", "y"], wrong)] * 2
    monkeypatch.setattr(policy_gradient, "draw_groups", lambda *given: drawn)
    seen = []
    monkeypatch.setattr(objective, "batch_loss", lambda groups, denominator: seen.append(groups))
    list(objective.losses(Step(1, 0.0, 5.0), [batch]))
    (known, other), *_ = seen
    assert known.values == [0.0, 0.0, 1.0] and known.texts[-1] == "3" and other.values == [0.0, 0.0]
    assert objective.metrics["reward"] == 0  # of what was drawn


def test_samples_differ_by_step_and_repeat_for_the_same_step(student, tmp_path):
    from schema_student.training.rl.groups import draw_groups

    settings = resolve_auto(student, "gemma")
    loaded = tiny.tiny_student(tmp_path)
    prompt = Prompt("number 1", [1], Task(compile_schema(NUMBER), 3))
    texts = [draw_groups(loaded, [prompt], settings, step)[0].texts for step in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2] and len(texts[0]) == 4
