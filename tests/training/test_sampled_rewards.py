"""Samples, what they are worth, and what is decided by it: groups, scores, guards, validations, the choice by them."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_jsonl
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.core.tally import Tally
from schema_student.schema.compiling import compile_schema
from schema_student.student.batching import Ids
from schema_student.student.generated import Generation
from schema_student.student.reading import Reading
from schema_student.student.tokens import encode_completion, encode_prompt
from schema_student.training.alignment import chosen_rows, policy_gradient, ppo, prompt_link, selection, validation
from schema_student.training.alignment.objective import Alignment
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.rl import groups
from schema_student.training.rl.groups import Group, Prompt
from schema_student.training.rl.losses import grpo_losses, rloo_losses
from schema_student.training.rl.rewards import Reward, Task

SCHEMA = compile_schema({"type": "object", "properties": {"n": {"type": "integer"}, "u": {"type": "string"}}})
KNOWN = Prompt("how many?", [1, 2], Task(SCHEMA, {"n": 2, "u": "km"}))
OPEN = Prompt("anything?", [3], Task(SCHEMA))
RIGHT, HALF, NONE = '{"n":2,"u":"km"}', '{"n":2,"u":"m"}', "no"


def settings_of(**changes):
    return resolve_auto(default_settings(**changes), "embedded")


def written(text, ids, finished=True):
    return Generation(text, len(ids), finished, 0.1, tuple(ids))


def test_a_group_has_the_ids_texts_and_rewards_of_its_answers_by_the_scale_of_the_settings():
    settings = settings_of(rl_reward_valid=0.2, rl_reward_parts=0.5, strip_fences=False)
    answers = [written(RIGHT, [5, 6]), written(HALF, [7]), written(NONE, [8, 9, 4]), written(RIGHT, [5], False)]
    answers.append(written(f"```json\n{RIGHT}\n```", [6]))
    group = groups.grade_group(KNOWN, answers, settings)
    assert group.answers == [Ids([1, 2], list(each.ids)) for each in answers]
    assert group.texts == [each.text for each in answers]
    right, wrong = Reward(1.0, True, True, True), Reward(0.0, False, False, False)
    assert group.rewards == [right, Reward(0.45, True, False, False), wrong, wrong, wrong]
    assert group.values == [1.0, 0.45, 0.0, 0.0, 0.0] and group.varies and not replace(group, rewards=[right]).varies
    stripped = groups.grade_group(KNOWN, answers[4:], settings.changed(strip_fences=True))
    assert stripped.rewards == [right]
    assert groups.grade_group(OPEN, answers[1:3], settings).rewards == [Reward(1.0, True, False, True), wrong]


def test_what_is_told_of_a_group_leaves_out_right_answers_that_nobody_knows():
    answers = [written(RIGHT, [5, 6]), written(NONE, [8])]
    settings = settings_of(rl_reward_valid=0.3)
    told = {"values": [1.0, 0.0], "valid": [True, False], "tokens": [2, 1]}
    made = groups.grade_group(KNOWN, answers, settings)
    assert groups.describe_group(made, KNOWN) == {**told, "right": [True, False]}
    assert groups.describe_group(groups.grade_group(OPEN, answers, settings), OPEN) == {**told, "right": []}
    assert "right" not in groups.summarize_groups([{**told, "right": []}])


def test_answers_are_drawn_at_temperature_1_with_a_seed_of_run_and_step(monkeypatch):
    calls = []

    def generate(*given, **options):
        calls.append((*given, options))
        return [[written(RIGHT, [5])], [written(NONE, [6])]]

    monkeypatch.setattr(groups, "generate", generate)
    settings = settings_of(rl_samples=3, max_new_tokens=17, eval_batch_size=9, seed=2)
    made = groups.draw_groups("student", [KNOWN, OPEN], settings, 5)
    options = {"temperature": 1.0, "samples": 3, "seed": 2 * 2**20 + 5}
    assert calls == [("student", ["how many?", "anything?"], 17, 9, options)]
    assert [group.values for group in made] == [[1.0], [0.0]] and made[1].answers == [Ids([3], [6])]


def test_the_teachers_answer_is_right_and_stands_last_and_nobodys_is_none():
    student = SimpleNamespace(tokenizer=tiny.tiny_tokenizer())
    group = Group([Ids([1, 2], [8])], [NONE], [Reward(0.0, False, False, False)])
    taught = groups.with_teacher(group, KNOWN, student)
    assert taught.answers == [Ids([1, 2], [8]), Ids([1, 2], encode_completion(student.tokenizer, RIGHT))]
    assert taught.texts == [NONE, RIGHT] and taught.rewards[1] == Reward(1.0, True, True, True)
    assert groups.with_teacher(group, OPEN, student) is group


# ---------------------------------------------------------------------------------------------------------------------
# PPO


def test_a_reward_model_scores_each_text_and_a_cut_answer_has_one_less(monkeypatch):
    asked = []
    model = SimpleNamespace(score=lambda *given: asked.append(given) or [0.5, 1.5, 2.5])
    monkeypatch.setattr(ppo, "find_stop_ids", lambda student: frozenset({7}))
    right = Reward(1.0, True, True, True)
    made = [
        Group([Ids([1], [5, 7]), Ids([1], [7, 5])], ["a", "b"], [right] * 2),
        Group([Ids([3], [7])], ["c"], [right]),
    ]
    scored = ppo.score_groups(model, "student", [KNOWN, OPEN], made)
    assert asked == [(["how many?", "how many?", "anything?"], ["a", "b", "c"])]
    assert [group.values for group in scored] == [[0.5, 0.5], [2.5]]
    assert scored[1].rewards == [Reward(2.5, True, True, True)] and scored[0].texts == ["a", "b"]
    assert ppo.score_groups(None, "student", [KNOWN, OPEN], made) == made


def test_greedy_answers_are_scored_as_samples_are(monkeypatch):
    calls = []
    monkeypatch.setattr(
        ppo, "generate", lambda *given: calls.append(given) or [[written(HALF, [5])], [written(NONE, [6])]]
    )
    settings = settings_of(max_new_tokens=17, eval_batch_size=9, rl_reward_valid=0.25, rl_reward_parts=0.5)
    assert ppo.score_greedy_answers(None, "student", [KNOWN, OPEN], settings) == [0.5, 0.0]
    assert calls == [("student", ["how many?", "anything?"], 17, 9)]


def test_the_guard_stops_above_the_limit_of_kl_and_below_the_share_of_the_first_entropy():
    guard = ppo.Guard(2.0, 0.5)
    assert (guard.first_entropy, guard.reason) == (None, "")
    for kl, entropy in ((2.0, 0.8), (1.0, 0.4)):  # at its limits
        guard.update(kl, entropy)
        assert (guard.first_entropy, guard.reason) == (0.8, "")
    guard.update(0.0, 0.3999)
    assert guard.reason == "entropy fell to 0.3999 nats a token, below 0.4000 (--ppo-entropy-share)"
    guard.update(2.25, 0.1)
    assert guard.reason == "KL to the student before is 2.25 nats an answer, above --ppo-kl-limit 2"


def test_a_reward_model_is_loaded_where_one_is_named(monkeypatch):
    monkeypatch.setattr(ppo, "load_reward_model", lambda name: f"model of {name}")
    assert ppo.load_reward(settings_of(ppo_reward_model="rm")) == "model of rm"
    assert ppo.load_reward(settings_of()) is None


# ---------------------------------------------------------------------------------------------------------------------
# Policy gradients


@pytest.mark.parametrize(("kind", "length"), [("grpo", 0), ("dr_grpo", 17)])
def test_grpo_divides_by_deviation_and_length_or_by_neither(kind, length):
    objective = policy_gradient.GRPO.__new__(policy_gradient.GRPO)
    objective.settings = settings_of(grpo_kind=kind, max_new_tokens=17)
    deviation = math.sqrt(0.5) + 1e-4 if kind == "grpo" else 1.0
    found = objective.advantages(torch.tensor([[1.0, 0.0]]))
    assert found[0].tolist() == pytest.approx([0.5 / deviation, -0.5 / deviation])
    logps, mask = torch.tensor([[-1.0, -2.0, 0.0]], requires_grad=True), torch.tensor([[1.0, 1.0, 0.0]])
    made = objective.answer_losses(logps, mask, torch.tensor([2.0]))
    assert torch.equal(made, grpo_losses(logps, logps.detach(), mask, torch.tensor([2.0]), 0.2, length))
    assert made.item() == pytest.approx(-4.0 / (length or 2))


def test_rloo_takes_a_whole_answer_as_one_action():
    objective = policy_gradient.RLOO.__new__(policy_gradient.RLOO)
    logps, mask = torch.tensor([[-1.0, -2.0]], requires_grad=True), torch.ones(1, 2)
    made = objective.answer_losses(logps, mask, torch.tensor([2.0]))
    assert torch.equal(made, rloo_losses(logps, logps.detach(), torch.tensor([2.0]), 0.2)) and made.item() == -2.0
    assert objective.advantages(torch.tensor([[1.0, 0.0, 0.5]]))[0].tolist() == [0.75, -0.75, 0.0]


@pytest.mark.parametrize(("taught", "answers"), [(False, 8), (True, 9)])
def test_the_loss_is_over_all_answers_of_a_batch(taught, answers):
    objective = policy_gradient.RLOO.__new__(policy_gradient.RLOO)
    objective.settings = settings_of(rl_teacher_in_group=taught, rl_samples=4)
    batch = objective.collate([{"name": "a", "prompt": KNOWN}, {"name": "b", "prompt": OPEN}])
    assert batch == {"names": ["a", "b"], "prompts": [KNOWN, OPEN]} and objective.loss_denominator(batch) == answers


def test_a_reference_is_kept_only_where_its_distance_costs_something():
    objective = policy_gradient.RLOO.__new__(policy_gradient.RLOO)
    for weight, kept in ((0.0, False), (0.01, True)):
        objective.settings = settings_of(rl_kl_weight=weight)
        assert objective.keeps_reference is kept
    assert ppo.PPO.__new__(ppo.PPO).keeps_reference is True


# ---------------------------------------------------------------------------------------------------------------------
# Chosen rows


def alignment_of(tmp_path, rows=(), **changes):
    student = SimpleNamespace(tokenizer=tiny.tiny_tokenizer(), model=torch.nn.Dropout(0.5))
    batches = SimpleNamespace(student=student, batch_tokens=99, trees=True, autocast=None)
    return Alignment(settings_of(**changes), batches, rows, None, tmp_path)


def test_hard_requests_are_counted_and_none_at_all_is_refused(tmp_path, monkeypatch, capsys):
    rows = [{"answers": [Ids([1], [2])], "name": str(i), "key": "s"} for i in range(5)]
    read = [Reading(p, 0.0, 0) for p in (0.1, 0.5, 0.2, 0.9, 0.8)]
    monkeypatch.setattr(chosen_rows, "read_rows_of", lambda given, batches: read[: len(given)])
    made = chosen_rows.HardSFT(alignment_of(tmp_path, rows, hard_below=0.5, hard_replay=0.9, requests=""))
    assert [row["name"] for row in made.rows[:2]] == ["0", "2"] and {row["name"] for row in made.rows[2:]} == {*"134"}
    assert "  2 of 5 requests are hard; 3 others are replayed\n" in capsys.readouterr().out
    assert made.batches.student.model.p == 0.0  # nothing is dropped out
    with pytest.raises(UserError, match=r"no request has less than 0\.1 of P\(truth\): raise --hard-below"):
        chosen_rows.HardSFT(alignment_of(tmp_path, rows, hard_below=0.1, hard_replay=0.5, requests=""))


def test_the_best_sample_of_a_request_becomes_its_row(tmp_path, monkeypatch, capsys):
    rows = [{"prompt": Prompt(f"p{i}", [i], Task(SCHEMA)), "answers": [], "name": name} for i, name in enumerate("bca")]
    right, wrong = Reward(1.0, True, False, True), Reward(0.0, False, False, False)
    drawn = [
        Group([], ["x", "y", "y"], [right] * 3),
        Group([], ["z"], [wrong]),
        Group([], ["x", "w"], [right, wrong]),
    ]
    asked = []
    monkeypatch.setattr(chosen_rows, "sampled_rows", lambda alignment: rows)
    monkeypatch.setattr(chosen_rows, "draw_groups", lambda *given: asked.append(given) or drawn)
    alignment = alignment_of(tmp_path)
    made = chosen_rows.RFT(alignment)
    assert asked == [(alignment.batches.student, [row["prompt"] for row in rows], alignment.settings, 0)]
    tokenizer = alignment.batches.student.tokenizer
    answers = {row["name"]: row["answers"] for row in made.rows}
    assert [*answers] == ["a", "b"]  # in the order of their names, whichever process drew them
    assert (
        answers["a"] == [Ids([2], encode_completion(tokenizer, "x"))] and made.sequences(made.rows[0]) == answers["a"]
    )
    assert answers["b"] == [Ids([0], encode_completion(tokenizer, "y"))]
    assert (tmp_path / "rft_rows.jsonl").read_text().splitlines() == [
        '{"name": "b", "text": "y", "count": 2}',
        '{"name": "a", "text": "x", "count": 1}',
    ]
    assert "  2 of 3 requests have a sample that is right\n" in capsys.readouterr().out
    (tmp_path / "rft_rows.jsonl").write_text("")
    with pytest.raises(UserError, match="no sample is right: raise --rl-samples"):
        chosen_rows.RFT(alignment)


def test_a_chosen_row_is_learned_token_by_token():
    objective = chosen_rows.RFT.__new__(chosen_rows.RFT)
    assert objective.loss_denominator({"completion_mask": torch.tensor([[1, 1, 0], [1, 0, 0]])}) == 3


# ---------------------------------------------------------------------------------------------------------------------
# Validation, and the choice by it


def test_a_validation_by_reading_says_all_of_where_the_student_stands(monkeypatch):
    rows = [{"key": "s", "answers": [], "request": i} for i in range(5)]
    validator = validation.Validation(
        SimpleNamespace(student="s"), rows, settings_of(align_stop=2.0, max_new_tokens=17)
    )
    sure, unsure = Reading(0.75, -0.1, 0), Reading(0.25, -2.0, 0)
    found = iter([[sure, unsure, unsure, sure, sure], [unsure, sure, sure, sure, sure]])
    monkeypatch.setattr(validation, "read_rows_of", lambda rows, batches: next(found))
    asked, grades = [], iter([[(False, False), (True, False)], [(True, False)]])
    monkeypatch.setattr(validation, "grade_answers", lambda *given: asked.append(given) or next(grades))
    first, second = validator.read(), validator.read()
    assert asked == [("s", [1, 2], 17), ("s", [0], 17)]
    same = {"eval_p_truth_change": 0.0, "eval_p_truth_error": 0.0, "eval_valid_change": 0.0, "eval_valid_error": 0.0}
    counts = {"eval_requests": 5, "eval_greedy": 0.6, "eval_fixed": 0, "eval_broken": 0}
    assert first == {"eval_p_truth": 0.55, "eval_valid": 0.8, **same, **counts}
    error = math.sqrt((0.6**2 + 2 * 0.4**2 + 2 * 0.1**2) / 4 / 5)  # of changes -0.5, 0.5, 0.5, 0, 0 about 0.1
    assert second == pytest.approx(
        {
            **{"eval_requests": 5, "eval_p_truth": 0.65, "eval_p_truth_change": 0.1, "eval_p_truth_error": error},
            **{"eval_valid": 1.0, "eval_valid_change": 0.2, "eval_valid_error": 0.2},
            **{"eval_greedy": 0.8, "eval_fixed": 2, "eval_broken": 1},
        }
    )
    assert validator.fallen == "" and validation.Validation(None, [], settings_of()).read() == {}
    state = validator.state_dict()
    assert state["fallen"] == "" and state["start"][1] == (0.25, False, False)
    validator.load_state_dict({"start": [[0.5, True, False]], "fallen": "so"})
    assert validator.start == [validation.Standing(0.5, True, False)] and validator.fallen == "so"


@pytest.mark.parametrize(("requests", "fallen"), [(4, False), (5, True)])
def test_of_too_few_requests_no_fall_is_said(monkeypatch, requests, fallen):
    validator = validation.Validation(SimpleNamespace(student=None), [{"key": "s"}] * requests, settings_of())
    found = iter([[Reading(0.9, -0.1, 0)] * requests, [Reading(0.1, -0.1, 0)] * requests])
    monkeypatch.setattr(validation, "read_rows_of", lambda rows, batches: next(found))
    monkeypatch.setattr(validation, "grade_answers", lambda *_: [])
    validator.read(), validator.read()
    assert bool(validator.fallen) is fallen
    assert not fallen or validator.fallen == "P(truth) of validation requests fell by 0.8000 +- 0.0000"


def test_rows_are_read_in_batches_of_32_and_come_back_in_their_order(monkeypatch):
    calls = []

    def read(student, answers, *how):
        calls.append((student, answers, how))
        return [Reading(answer / 10, -1.0, answer, (0.5,), -3.0) for answer in answers]

    monkeypatch.setattr(validation, "read_answers", read)
    batches = SimpleNamespace(student="s", batch_tokens=99, trees=True, autocast=None)
    rows = [{"answers": i} for i in (3, 1, 2)]
    found = [Reading(0.3, -1.0, 3), Reading(0.1, -1.0, 1), Reading(0.2, -1.0, 2)]
    assert validation.read_rows_of(rows, batches) == found and calls == [("s", [3, 1, 2], (32, 99, True, None))]


@pytest.mark.parametrize(
    ("requests", "why"),
    [(None, "no validation request"), (4, "4 validation requests are too few to choose by"), (5, None)],
)
def test_a_link_is_chosen_by_five_requests_or_more_else_the_last_one_is_taken(tmp_path, requests, why):
    read = {"eval_p_truth": 0.5, "eval_p_truth_change": 0.5, "eval_p_truth_error": 0.1, "eval_fixed": 1}
    read |= {"eval_valid": 1.0, "eval_valid_change": 0.0, "eval_valid_error": 0.0, "eval_broken": 0}
    rows = [
        {"step": step, "eval_runtime": 1.0, **({"eval_requests": requests, **read} if requests else {})}
        for step in (0, 2)
    ]
    write_jsonl(tmp_path / "training_metrics.jsonl", rows)
    made = selection.choose_checkpoint(tmp_path, [2, 4])
    if why is None:
        gate = {"requests": 5, "p_truth_before": 0.0, "p_truth": 0.5, "change": 0.5, "error": 0.1, "z": 5.0}
        gate |= {"needed": 3.0, "fixed": 1, "broken": 0, "valid_before": 1.0, "valid": 1.0}
        assert made["checkpoint"] == "checkpoint-2" and made["gate"] == gate
    else:
        last = {"checkpoint": "checkpoint-4", "why": f"the last one: {why}", "chosen_by": "nothing"}
        assert made == {**last, "sft_was_better": False}


@pytest.mark.parametrize(("z", "chosen"), [(-1.5, 4), (-1.51, 2)])
def test_valid_answers_may_fall_by_one_and_a_half_standard_errors(z, chosen):
    rows = [
        {"step": 2, "eval_p_truth": 0.8, "eval_p_truth_change": 0.3, "eval_valid_change": 0.0, "eval_valid_error": 1.0},
        {"step": 4, "eval_p_truth": 0.9, "eval_p_truth_change": 0.4, "eval_valid_change": z, "eval_valid_error": 1.0},
    ]
    more = {"eval_requests": 300, "eval_p_truth_error": 0.1, "eval_fixed": 1, "eval_broken": 0, "eval_valid": 1.0}
    assert selection.choose_by_reading([{**row, **more} for row in rows])["checkpoint"] == f"checkpoint-{chosen}"


BY_REWARD = "mean reward of greedy answers to held-out prompts"


def reward_rows(folder, prompts, *rewards):
    rows = [
        {"step": i, "eval_prompts": prompts, "eval_reward": r, "eval_reward_change": r - 1.0, "eval_reward_error": 0.25}
        for i, r in enumerate(rewards)
    ]
    write_jsonl(folder / "training_metrics.jsonl", [{**row, "eval_runtime": 0.0} for row in rows])


@pytest.mark.parametrize(
    ("prompts", "rewards", "step", "by", "why"),
    [
        (4, (1.0, 2.0, 1.5), 2, "nothing", "the last one: 4 held-out prompts are too few to choose by"),
        (
            5,
            (1.0, 2.0, 1.5),
            1,
            BY_REWARD,
            "mean reward of 5 held-out prompts 1.0",
        ),
        (
            5,
            (1.0, 1.0, 0.5),
            0,
            BY_REWARD,
            "no checkpoint was better than the",
        ),
        (9, (1.0,), 2, "nothing", "the last one: no prompt is held out"),
    ],
)
def test_five_held_out_prompts_choose_and_a_reward_that_is_the_same_is_no_gain(
    tmp_path, prompts, rewards, step, by, why
):
    reward_rows(tmp_path, prompts, *rewards)
    made = prompt_link.choose_by_reward(tmp_path, [1, 2])
    assert (made["checkpoint"], made["chosen_by"], made["sft_was_better"]) == (f"checkpoint-{step}", by, step == 0)
    assert made["why"].startswith(why)


@pytest.mark.parametrize("prompts", [4, 5])
def test_held_out_prompts_validate_by_the_change_of_their_rewards(monkeypatch, prompts):
    monkeypatch.setattr(prompt_link, "load_reward", lambda settings: "model")
    scores, asked = iter([[1.0] * prompts, [0.0] * prompts, [1.0, 0.0, 2.0, 1.0, 1.0][:prompts]]), []
    monkeypatch.setattr(prompt_link, "score_greedy_answers", lambda *given: asked.append(given) or next(scores))
    settings = settings_of(align_stop=2.0)
    validator = prompt_link.RewardValidation(SimpleNamespace(student="s"), [*range(prompts)], settings)
    same = {"eval_prompts": prompts, "eval_reward": 1.0, "eval_reward_change": 0.0, "eval_reward_error": 0.0}
    assert validator.read() == same and validator.fallen == ""
    assert validator.read() == {**same, "eval_reward": 0.0, "eval_reward_change": -1.0}
    assert validator.fallen == "the mean reward of held-out prompts fell by 1.0000 +- 0.0000" * (prompts == 5)
    found = validator.read()
    assert found["eval_reward_error"] == pytest.approx(math.sqrt(2 / (prompts - 1) / prompts)) and not validator.fallen
    assert asked == [("model", "s", [*range(prompts)], settings)] * 3
    state = validator.state_dict()
    assert state == {"rewards_at_start": [1.0] * prompts, "fallen": ""}
    other = prompt_link.RewardValidation(SimpleNamespace(student="s"), [], settings)
    other.load_state_dict({**state, "fallen": "so"})
    assert (other.rewards_at_start, other.fallen, other.read()) == ([1.0] * prompts, "so", {})


def test_prompts_of_any_origin_become_rows_and_those_without_room_are_counted(capsys):
    tokenizer, tally = tiny.tiny_tokenizer(), Tally()
    ids = encode_prompt(tokenizer, "how many?")
    settings = settings_of(max_seq_length=len(ids) + 4, max_new_tokens=4)
    known = {"prompt": "how many?", "schema_id": "s", "split": "train", "schema": SCHEMA.schema, "target": {"n": 2}}
    rows = [known, {**known, "split": "validation", "accepted": {"n": [2, 3]}}, {**known, "prompt": "how many? "}]
    rows[2] |= {"prompt": "how many??"}
    first, second = prompt_link.encode_prompts(rows, tokenizer, settings, tally)
    prompt = first.pop("prompt")
    assert first == {"answers": [], "name": "s", "key": "s", "split": "train"} and second["split"] == "validation"
    assert (prompt.text, prompt.ids, prompt.task.target, prompt.task.accepted) == ("how many?", ids, {"n": 2}, None)
    assert second["prompt"].task.accepted == {"n": [2, 3]}
    assert tally.counts == {"prompt leaves no room for an answer": 1}
    assert "left out 1: prompt leaves no room for an answer" in capsys.readouterr().out
    bare = [{name: known[name] for name in ("prompt", "schema_id", "split")}]
    with pytest.raises(UserError, match="a prompt without a schema has no grade: give --ppo-reward-model"):
        prompt_link.encode_prompts(bare, tokenizer, settings, Tally())
    (row,) = prompt_link.encode_prompts(bare, tokenizer, settings.changed(ppo_reward_model="rm"), Tally())
    assert row["prompt"].task.schema.schema == {} and row["prompt"].task.target is None


def test_every_recipe_is_a_link_that_can_be_aligned_by():
    from schema_student.core.links import OBJECTIVES

    assert {*RECIPES} == {*OBJECTIVES} - {"dpo"}
