"""Rollouts: sampled by a student or a server, scored by schema, reward model or teacher; resumed; learned from."""

import json

import pytest
import tiny
from fault_server import VERDICT, Fault, fault_server, line, said, status, whole
from hotel_requests import FORM, dataset_row

from schema_student.core.artifacts import Artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.stamps import beside, digest
from schema_student.preference import imports, layouts, rollouts, scoring
from schema_student.student.choice import base_digest
from schema_student.student.loading import save_adapter
from schema_student.student.reward_model import load_reward_model, make_reward_model
from schema_student.teacher.embedded.identity import MODEL
from schema_student.teacher.faults import TeacherError, TeacherFailure

TARGET = {"city": "Lyon", "nights": 2}
RIGHT, OTHER, INVALID, BROKEN = '{"nights":2,"city":"Lyon"}', '{"city":"Paris"}', '{"city":"Rome"}', '{"city":'


def judged_row(*texts, **facts):
    row = {"prompt": "p", "schema_id": "form", "schema": FORM, "query": "q", "current_date": "2026-01-31"}
    answers = [{"text": text, "finished": True} for text in texts]
    return scoring.distinct_answers({**row, "target": TARGET, "answers": answers, **facts})


def scores(row):
    return [answer["score"] for answer in row["answers"]]


@pytest.fixture
def settings(tmp_path):
    """The tiny student, the embedded teacher, a data set of three requests."""
    made = tiny.tiny_settings(tmp_path, teacher_model=MODEL, max_new_tokens=12, samples_per_prompt=3)
    rows = [dataset_row(f"{i} nights in Lyon", {"city": "Lyon", "nights": i}, "alignment") for i in (1, 2, 3)]
    write_jsonl(paths(made).dataset, rows)
    return made


def answering(monkeypatch, *texts):
    """Have the student write these texts to every prompt, a text a sample."""
    asked = []

    def ask(settings, adapter):
        def answer(prompts):
            asked.extend(prompts)
            return [[{"text": text, "finished": text != BROKEN} for text in texts] for _ in prompts]

        return answer

    monkeypatch.setattr(rollouts, "ask_student", ask)
    return asked


def test_the_schema_scores_by_rank_and_leaves_what_was_cut_off(settings):
    row = judged_row(RIGHT, OTHER, INVALID, "no", BROKEN)
    row["answers"][4]["finished"] = False
    scoring.score_by_schema([row], settings)
    assert scores(row) == [5, 4, 3, 0, None]
    assert [answer.get("why") for answer in row["answers"]][1:3] == ["meaning", "/city enum"]


def test_without_a_target_a_valid_answer_has_rank_4(settings):
    row = judged_row(RIGHT, target=None)
    scoring.score_by_schema([row], settings)
    assert scores(row) == [4]


def by_length(asks):
    """A teacher that prefers the longer answer, finds equal lengths a tie, and cannot judge "?"."""
    verdicts = []
    for role, asked in asks:
        assert role == "compare"
        gap = len(asked["first"]) - len(asked["second"])
        better = {"better": "first" if gap > 0 else "second" if gap < 0 else "tie", "reason": ""}
        verdicts.append(TeacherFailure("compare", "no") if "?" in (asked["first"], asked["second"]) else better)
    return verdicts


def test_the_teacher_compares_every_two_answers_once_and_ties_are_kept_apart(settings):
    row = judged_row("a", "ccc", "bb", "dd", "ccc", "?")
    scoring.score_by_teacher([row], by_length, settings)
    assert [answer["count"] for answer in row["answers"]] == [1, 2, 1, 1, 1]
    assert scores(row) == [0.0, 1.0, 0.5, 0.5, None]
    assert row["ties"] == [[2, 3]] and row["errors"] == ["no"] * 4
    pairs = layouts.expand(row, 9)
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [("ccc", "a"), ("ccc", "dd"), ("ccc", "bb")]


def test_the_order_shown_is_shuffled_by_a_seeded_hash(settings):
    def firsts(seed):
        rows = [judged_row("a", "b", prompt=str(i), schema_id="s") for i in range(40)]
        shown = []
        scoring.score_by_teacher(
            rows, lambda asks: shown.extend(a["first"] for _, a in asks) or by_length(asks), settings.changed(seed=seed)
        )
        return shown

    assert firsts(1) == firsts(1) != firsts(2)
    assert 8 <= firsts(1).count("a") <= 32


def test_rollouts_are_scored_by_a_reward_model_that_was_trained_here(settings, tmp_path):
    save_adapter(tmp_path / "rm", make_reward_model(settings, None))
    by_reward = settings.changed(rollout_scorer="reward", reward_model=str(tmp_path / "rm"))
    rows = read_jsonl(rollouts.make_rollouts(by_reward))
    answers = [(row["prompt"], answer) for row in rows for answer in row["answers"] if answer["finished"]]
    expected = load_reward_model(str(tmp_path / "rm")).score([p for p, _ in answers], [a["text"] for _, a in answers])
    assert [answer["score"] for _, answer in answers] == pytest.approx(expected, abs=1e-5)
    assert all(answer["score"] is None for row in rows for answer in row["answers"] if not answer["finished"])
    meta = read_json(beside(paths(by_reward).rollouts / "rollout_judged.jsonl", "meta"))
    assert meta["reward"] == base_digest(str(tmp_path / "rm")) and meta["rollout_scorer"] == "reward"


def test_rollouts_scored_by_a_reward_model_need_one(settings):
    with pytest.raises(UserError, match="--rollout-scorer reward needs --reward-model"):
        rollouts.make_rollouts(settings.changed(rollout_scorer="reward"))


def test_a_real_student_is_sampled_and_the_files_tell_all(settings):
    judged = rollouts.make_rollouts(settings)
    responses = read_jsonl(judged.with_name("rollout_responses.jsonl"))
    assert [len(row["answers"]) for row in responses] == [3, 3, 3]
    manifest = read_json(judged.with_name("manifest.json"))
    assert manifest["counts"]["prompts"] == 3 and manifest["counts"]["answers"] == 9
    assert manifest["files"][judged.name] == digest(judged)
    assert manifest["settings"]["samples_per_prompt"] == 3 and manifest["scorer"] == "schema"
    assert {row["scorer"] for row in read_jsonl(judged)} == {"schema"}


def scored(*answers, ties=(), errors=()):
    """A row of rollout_judged.jsonl with answers (count, finished, score)."""
    found = [{"text": "t", "count": n, "finished": finished, "score": score} for n, finished, score in answers]
    return {"prompt": "p", "answers": found, "ties": list(ties), "errors": list(errors)}


def test_a_manifest_counts_what_the_files_hold(settings, tmp_path):
    responses, judged = tmp_path / "rollout_responses.jsonl", tmp_path / "rollout_judged.jsonl"
    write_jsonl(responses, [{"prompt": "p"}])
    rows = [
        scored((2, True, 5), (1, True, 3), ties=[["a", "b"]]),
        scored((3, False, None), errors=["timed out", "no JSON"]),
        scored((1, True, 4), (2, True, 4), (1, True, None)),
    ]
    write_jsonl(judged, rows)
    write_json(beside(responses, "meta"), {"model": "m:1"})
    write_json(beside(judged, "meta"), {"teacher": "t:2"})
    found = rollouts.describe(settings, responses, judged)
    assert found["counts"] == {
        "prompts": 3,
        "answers": 10,
        "different_answers": 6,
        "cut_off": 1,
        "unscored": 2,
        "ties": 1,
        "teacher_errors": 2,
        "prompts_with_a_preference": 1,
    }
    assert found["scores"] == {"mean": 4.0, "min": 3, "max": 5} and found["scorer"] == "schema"
    assert (found["answered_by"], found["judged_by"]) == ("m:1", "t:2")
    assert found["files"] == {path.name: digest(path) for path in (responses, judged)}
    decided = {"samples_per_prompt", "schema_rendering", "rollout_source", "dtype", "max_new_tokens", "data_set"}
    assert decided | {"rollout_scorer", "adapter", "seed"} <= found["settings"].keys() and "torch" in found["versions"]
    write_jsonl(judged, [])
    assert rollouts.describe(settings, responses, judged)["scores"] == {"mean": None, "min": None, "max": None}


def test_judged_rollouts_are_preference_data(settings, monkeypatch):
    answering(monkeypatch, INVALID, '{"nights":2,"city":"Lyon"}', "no", BROKEN)
    judged = rollouts.make_rollouts(settings)
    pairs = read_jsonl(imports.import_pairs(settings.changed(data_set=str(judged), pairs_per_prompt=1)))
    assert [(pair["chosen"], pair["rejected"], pair["rejected_rank"]) for pair in pairs] == [(RIGHT, "no", 0)] * 3
    assert sorted(pair["chosen_rank"] for pair in pairs) == [4, 4, 5]
    assert {pair["source"] for pair in pairs} == {"rollout: schema"}


@pytest.mark.parametrize("stage", ["sample", "judge"])
def test_killed_and_run_again_it_writes_the_same_and_asks_nothing_twice(settings, monkeypatch, tmp_path, stage):
    monkeypatch.setattr(rollouts, "CHUNK", 1)
    asked = answering(monkeypatch, RIGHT, OTHER)
    whole_run = rollouts.make_rollouts(settings.changed(run="whole", data_dir=str(paths(settings).dataset.parent)))
    asked.clear()
    append, count = Artifact.append, 0

    def dying(artifact, row):
        nonlocal count
        count += 1
        if count == (2 if stage == "sample" else 5):
            raise KeyboardInterrupt
        append(artifact, row)

    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            rollouts.make_rollouts(settings)
    judged = rollouts.make_rollouts(settings)
    for name in ("rollout_responses.jsonl", "rollout_judged.jsonl"):
        assert judged.with_name(name).read_bytes() == whole_run.with_name(name).read_bytes()
    assert len(asked) == (4 if stage == "sample" else 3)  # the row that was under way is asked again


def test_other_settings_are_refused(settings, monkeypatch):
    answering(monkeypatch, RIGHT, OTHER)
    rollouts.make_rollouts(settings)
    with pytest.raises(UserError, match="samples_per_prompt was 3, now 4"):
        rollouts.make_rollouts(settings.changed(samples_per_prompt=4))
    with pytest.raises(UserError, match='rollout_scorer was "schema", now "teacher"'):
        rollouts.make_rollouts(settings.changed(rollout_scorer="teacher"))


def test_the_embedded_teacher_judges_by_the_known_target(settings, monkeypatch):
    answering(monkeypatch, RIGHT, OTHER, "no")
    judged = rollouts.make_rollouts(settings.changed(rollout_scorer="teacher"))
    rows = read_jsonl(judged)
    assert sorted(map(tuple, map(scores, rows))) == [(0.75, 0.75, 0.0), (0.75, 0.75, 0.0), (1.0, 0.5, 0.0)]
    manifest = read_json(judged.with_name("manifest.json"))
    assert manifest["counts"]["ties"] == 2
    assert manifest["answered_by"] is None and manifest["judged_by"].startswith(f"{MODEL}@")


def test_ollama_is_sampled_through_the_teachers_api(settings, monkeypatch):
    with fault_server() as server:
        server.fault, server.times = Fault("busy", "busy", "retried", status(503)), 1
        made = settings.changed(rollout_source="teacher", teacher_model="m:1", teacher_host=[server.host])
        judged = rollouts.make_rollouts(made)
    manifest = read_json(judged.with_name("manifest.json"))
    assert manifest["answered_by"] == "m:1" and manifest["judged_by"] is None
    rows = read_jsonl(judged.with_name("rollout_responses.jsonl"))
    assert [row["answers"] for row in rows] == [[{"text": json.dumps(VERDICT), "finished": True}] * 3] * 3
    assert len(server.chats) == 10 and len({chat["options"]["seed"] for chat in server.chats}) == 9
    assert {chat["messages"][0]["content"] for chat in server.chats} == {row["prompt"] for row in rows}
    assert {chat["options"]["temperature"] for chat in server.chats} == {1.0}
    assert [row["answers"][0]["count"] for row in read_jsonl(judged)] == [3, 3, 3]


def test_a_server_is_sent_the_limit_of_a_teachers_answer(settings):
    with fault_server() as server:
        made = settings.changed(rollout_source="teacher", teacher_model="m:1", teacher_host=[server.host])
        rollouts.make_rollouts(made.changed(teacher_num_predict=9))
    assert {(chat["options"]["num_predict"], chat["options"]["num_ctx"]) for chat in server.chats} == {
        (9, made.answers.teacher_num_ctx)
    }


def test_a_server_that_cuts_an_answer_off_or_goes_away(settings, monkeypatch):
    made = settings.changed(rollout_source="teacher", teacher_model="m:1", teacher_retries=1)
    with fault_server() as server:
        made = made.changed(teacher_host=[server.host])
        server.fault, server.times = Fault("busy", "busy", "retried", status(503)), 10**9
        with pytest.raises(TeacherError, match="no answer of m:1 at"):
            rollouts.make_rollouts(made)
        server.fault = Fault("cut", "cut", "asked anew", whole(line(said("half", done_reason="length"))))
        judged = rollouts.make_rollouts(made)
    assert read_json(judged.with_name("manifest.json"))["counts"]["cut_off"] == 3
    assert {answer["score"] for row in read_jsonl(judged) for answer in row["answers"]} == {None}


def test_prompts_of_ones_own_need_what_their_scorer_needs(settings, tmp_path):
    path = tmp_path / "prompts.jsonl"
    own = settings.changed(data_set=str(path))
    path.write_text(json.dumps({"prompt": "hi"}) + "\n")
    with pytest.raises(UserError, match=r"prompts.jsonl:1: this row has no schema to judge by"):
        rollouts.read_prompts(own)
    assert rollouts.read_prompts(own.changed(rollout_scorer="teacher"))[0]["prompt"] == "hi"
    path.write_text(json.dumps({"schema": FORM, "query": "a room"}) + "\n")
    assert "Request: a room" in rollouts.read_prompts(own)[0]["prompt"]
    path.write_text(json.dumps({"text": "hi"}) + "\n")
    with pytest.raises(UserError, match=r"prompts.jsonl:1: this row has no prompt"):
        rollouts.read_prompts(own)
    path.write_text(json.dumps({"schema_json": "{", "query": "q"}) + "\n")
    with pytest.raises(UserError, match=r"prompts.jsonl:1: schema_json and ast_json must be JSON"):
        rollouts.read_prompts(own)
    path.write_text("")
    with pytest.raises(UserError, match="has no rows"):
        rollouts.read_prompts(own)
