"""Rollouts: sampled by a student or a server, scored by schema, reward model or teacher; resumed; learned from."""

import json
from pathlib import Path

import pytest
import tiny
from fault_server import VERDICT, Fault, fault_server, line, said, status, whole
from hotel_requests import FORM, dataset_row

from schema_student.core.artifacts import Artifact, read_meta
from schema_student.core.chunks import Ranks
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.stamps import beside, digest, versions
from schema_student.preference import imports, layouts, rollouts, scoring
from schema_student.preference.held_out import prompt_digest
from schema_student.schema.compiling import SchemaError
from schema_student.schema.prompts import render_prompt
from schema_student.student.choice import base_digest, resolve_student
from schema_student.student.generated import Generation
from schema_student.student.loading import save_adapter
from schema_student.student.reward_model import load_reward_model, make_reward_model
from schema_student.teacher.choice import resolve_teacher
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


def test_rollouts_are_scored_by_a_reward_model_that_was_trained_here(settings, monkeypatch, tmp_path):
    answering(monkeypatch, RIGHT, OTHER, BROKEN)
    save_adapter(tmp_path / "rm", make_reward_model(settings, None))
    by_reward = settings.changed(rollout_scorer="reward", reward_model=str(tmp_path / "rm"))
    rows = read_jsonl(rollouts.make_rollouts(by_reward))
    answers = [(row["prompt"], answer) for row in rows for answer in row["answers"] if answer["finished"]]
    expected = load_reward_model(str(tmp_path / "rm")).score([p for p, _ in answers], [a["text"] for _, a in answers])
    assert [answer["score"] for _, answer in answers] == pytest.approx(expected, abs=1e-5)
    assert len(answers) == 6 and len({answer["score"] for _, answer in answers}) > 1
    assert [row["answers"][2]["score"] for row in rows] == [None] * 3  # which was cut off
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
    made = made.changed(teacher_concurrency=1)  # none is on its way when the first one is given up
    with fault_server() as server:
        made = made.changed(teacher_host=[server.host])
        server.fault, server.times = Fault("busy", "busy", "retried", status(503)), 10**9
        with pytest.raises(TeacherError, match="no answer of m:1 at"):
            rollouts.make_rollouts(made)
        server.fault = Fault("cut", "cut", "asked anew", whole(line(said("half", done_reason="length"))))
        judged = rollouts.make_rollouts(made)
    assert read_json(judged.with_name("manifest.json"))["counts"]["cut_off"] == 3
    assert {answer["score"] for row in read_jsonl(judged) for answer in row["answers"]} == {None}


def test_the_student_is_sampled_with_the_settings_of_rollouts(settings, monkeypatch):
    asked = []

    def generate(student, prompts, **how):
        asked.append((student, prompts, how))
        return [[Generation("a", 1, True, 0.0), Generation("b", 1, False, 0.0)] for _ in prompts]

    monkeypatch.setattr(rollouts, "generate", generate)
    monkeypatch.setattr(rollouts, "load_student", lambda settings, adapter: ("student", adapter))
    made = settings.changed(sample_temperature=0.5, seed=3)
    how = {"max_new_tokens": 12, "batch_size": 8, "temperature": 0.5, "samples": 3, "seed": 3}
    for adapter in (None, Path("an/adapter")):
        answers = rollouts.ask_student(made, adapter)(["p", "q"])
        assert answers == [[{"text": "a", "finished": True}, {"text": "b", "finished": False}]] * 2
        assert asked.pop() == (("student", str(adapter) if adapter else None), ["p", "q"], how)


def test_the_runs_own_adapter_answers_where_there_is_one(settings, monkeypatch, capsys):
    given = []
    ask = answering(monkeypatch, RIGHT)
    inner = rollouts.ask_student
    monkeypatch.setattr(
        rollouts, "ask_student", lambda settings, adapter: given.append(adapter) or inner(settings, adapter)
    )
    monkeypatch.setattr(rollouts, "check_adapter", lambda *how: given.append(how[0]))
    folder = paths(settings).sft_checkpoint
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    judged = rollouts.make_rollouts(settings)
    responses, resolved = judged.with_name("rollout_responses.jsonl"), resolve_student(settings)[1]
    meta, judged_meta = read_meta(responses), read_meta(judged)
    assert given == [str(folder), folder] and len(ask) == 3 and meta["adapter"] == str(folder)
    assert [*meta["inputs"]] == ["adapter_model.safetensors"]
    assert meta["base"] == base_digest(settings.student.base_model)
    assert meta["prompts"] == digest(rollouts.read_prompts(resolved))
    assert meta["settings"] == resolved.dump("sampling", "prompt", "rollouts", "loading", "generation")
    assert (judged_meta["settings"], judged_meta["rollout_scorer"]) == (resolved.dump("verdict"), "schema")
    assert [*judged_meta["inputs"]] == ["rollout_responses.jsonl"]
    said = capsys.readouterr().out
    for each in (f"answers of {settings.student.base_model}, {folder}", "answered 3/3 prompts", "judged 3/3 prompts"):
        assert f"  {each}\n" in said
    manifest = read_json(judged.with_name("manifest.json"))
    groups = ("sampling", "prompt", "rollouts", "loading", "generation", "data", "scoring", "student", "run")
    assert manifest["settings"] == resolved.dump(*groups) and manifest["versions"] == versions()


def test_the_teacher_s_stamp_and_settings_decide_what_it_answers_and_judges(settings, monkeypatch):
    answering(monkeypatch, RIGHT, OTHER)
    judged = rollouts.make_rollouts(settings.changed(rollout_scorer="teacher"))
    meta, resolved = read_meta(judged), resolve_student(settings)[1]
    assert meta["settings"] == resolved.dump("answers") and meta["teacher"] == resolve_teacher(settings).stamp


def test_of_several_processes_the_first_one_writes_and_tells_where_to_begin(settings, monkeypatch):
    told, shared = [], []

    def share(function, chunks):
        shared.append([len(chunk) for chunk in chunks])
        return map(function, chunks)

    answering(monkeypatch, RIGHT)
    monkeypatch.setattr(rollouts, "CHUNK", 2)
    judged = rollouts.make_rollouts(settings, Ranks(lambda value: told.append(value) or value, share))
    rollouts.make_rollouts(settings, Ranks(lambda value: told.append(value) or value, share))
    assert told == [0, 3] and shared == [[2, 1]]
    monkeypatch.setattr(rollouts, "is_first_process", lambda: False)
    other = settings.changed(run="other", data_dir=str(paths(settings).dataset.parent))
    for done in (0, 2, 3):
        responses = rollouts.make_rollouts(other, Ranks(lambda value, done=done: (told.append(value), done)[1], share))
        assert responses.name == "rollout_responses.jsonl" and not responses.parent.exists()
    assert shared[1:] == [[2, 1], [1]] and told[2:] == [0, 0, 0] and judged.exists()


def test_what_is_known_of_a_prompt_is_kept(settings, tmp_path, capsys):
    path = tmp_path / "prompts.jsonl"
    own = settings.changed(data_set=str(path), rollout_scorer="teacher", pair_prompts=2)
    known = {
        "schema_id": "s",
        "schema": FORM,
        "query": "a room",
        "current_date": "2026-01-31",
        "target": {},
        "accepted": {},
    }
    write_jsonl(path, [{**known, "prompt": "one", "other": 1}, {"prompt": "two"}, {"prompt": "three"}])
    with open(path, "a") as file:
        file.write("{\n")
    found = rollouts.read_prompts(own)
    assert found == [{**known, "prompt": "one"}, {"prompt": "two", "schema_id": prompt_digest("two")}]
    assert "  left out 1: broken line, not JSON: " in capsys.readouterr().out
    assert rollouts.read_prompts(own.changed(max_samples=1)) == found[:1]
    row = {
        "schema_json": json.dumps(FORM),
        "query": "a room",
        "current_date": "2026-01-31",
        "ast_json": '{"city":"Lyon"}',
    }
    write_jsonl(path, [row, {**row, "ast_json": None, "current_date": None}])
    first, second = rollouts.read_prompts(own)
    assert first["prompt"] == render_prompt(FORM, "a room", "2026-01-31", "compact") and first["target"] == {
        "city": "Lyon"
    }
    assert second["prompt"] == render_prompt(FORM, "a room", "", "compact") and "target" not in second
    for name in ("system", "tools", "functions", "images", "chat_template_kwargs", "history"):
        write_jsonl(path, [{"prompt": "p", name: "x", "id": 1}])
        with pytest.raises(UserError, match=f"prompts.jsonl:1: rollouts read the prompt alone: write {name} into its"):
            rollouts.read_prompts(own)
    write_jsonl(path, [{"schema": FORM}])
    with pytest.raises(UserError, match="no prompt, and no schema with a query"):
        rollouts.read_prompts(own)
    write_jsonl(paths(settings).dataset, [dataset_row("q", {}, "test_seen")])
    with pytest.raises(UserError, match=r"d_03_dataset.jsonl has no valid row to take prompts of"):
        rollouts.read_prompts(settings)


def test_prompts_of_the_run_have_what_d_03_says_of_them(settings):
    found = rollouts.read_prompts(settings.changed(pair_prompts=2))
    assert len(found) == 2 and {row["query"] for row in found} <= {f"{i} nights in Lyon" for i in (1, 2, 3)}
    (row,) = rollouts.read_prompts(settings.changed(max_samples=1))
    assert row == {
        **{"schema_id": "form", "schema": FORM, "query": row["query"], "current_date": "2026-01-31"},
        **{"target": row["target"], "prompt": render_prompt(FORM, row["query"], "2026-01-31", "compact")},
    }


def test_a_question_says_what_is_known_of_a_prompt():
    known = {"schema": FORM, "query": "q", "current_date": "2026-01-31", "accepted": {"city": ["Lyon"]}}
    row = {**known, "prompt": "p", "target": {"city": "Lyon"}, "split": "x"}
    asked = {**known, "reference": {"city": "Lyon"}, "first": "a", "second": "b"}
    assert scoring.question(row, "a", "b") == asked
    bare = {"prompt": "p", "schema": None, "target": None}
    assert scoring.question(bare, "a", "b") == {"prompt": "p", "first": "a", "second": "b"}


def test_seeds_are_those_of_all_releases(settings):
    assert scoring.draw_seed(settings, "p", 0) == 1006672219
    assert scoring.as_messages("p") == [{"role": "user", "content": "p"}]
    assert scoring.as_messages([{"role": "system", "content": "s"}]) == [{"role": "system", "content": "s"}]


def test_the_different_answers_of_a_prompt_stand_once_with_their_counts():
    answers = [("a", True), ("b", True), ("a", True), ("a", False)]
    row = {"prompt": "p", "answers": [{"text": text, "finished": finished} for text, finished in answers]}
    counted = [("a", True, 2), ("b", True, 1), ("a", False, 1)]
    assert scoring.distinct_answers(row) == {
        "prompt": "p",
        "answers": [{"text": text, "finished": done, "count": n, "score": None} for text, done, n in counted],
        "ties": [],
        "errors": [],
    }


def test_a_score_by_comparisons_is_rounded_to_four_digits(settings):
    def judge(asks):  # the longer one wins, but for a tie of the two shortest
        return [
            {"better": "tie"} if max(map(len, (a["first"], a["second"]))) < 3 else by_length([(r, a)])[0]
            for r, a in asks
        ]

    row = judged_row("a", "bb", "ccc", "dddd")
    scoring.score_by_teacher([row], judge, settings)
    assert scores(row) == [0.1667, 0.1667, 0.6667, 1.0] and row["ties"] == [[0, 1]]
    nobody = judged_row("alone")
    scoring.score_by_teacher([nobody], judge, settings)
    assert scores(nobody) == [None]


def test_fences_count_as_the_setting_says(settings):
    for strip, score in ((False, 0), (True, 5)):
        row = judged_row(f"```json\n{RIGHT}\n```")
        scoring.score_by_schema([row], settings.changed(strip_fences=strip))
        (answer,) = row["answers"]
        assert answer["score"] == answer["rank"] == score
    with pytest.raises(SchemaError, match=r"^form: "):
        scoring.score_by_schema([judged_row(RIGHT, schema={"type": 7})], settings)


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
