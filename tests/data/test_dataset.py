"""The dataset: valid rows only, split by schema, without leaks, the same whenever it is interrupted."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from forked import Program, run_program
from small_datasets import SMALL, city_schema, small_settings, write_own

from schema_student.core.artifacts import Artifact, read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl
from schema_student.core.paths import paths
from schema_student.core.resources import CHECKOUT, EMBEDDED_STUDENT
from schema_student.core.settings import default_settings, read_auto
from schema_student.data.dataset import rejected_answers_path, rejected_path, write_dataset
from schema_student.data.dedup import RequestIndex, normalized
from schema_student.data.extra_tests import write_extra_tests
from schema_student.data.quotas import OWN_MODE_ROWS, OWN_PAIR_SHARE, Quota, size_dataset, take_part_of_rows
from schema_student.data.sources import Source, read_user_schemas
from schema_student.data.splits import split_schemas
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.query_dsl import suggests_a_field
from schema_student.schema.structure import in_schema_order, shape
from schema_student.teacher.client import Teacher
from schema_student.teacher.faults import TeacherFailure

BFCL = CHECKOUT / "examples" / "bfcl" / "simple.jsonl"
FIELDS = {"schema_id", "domain", "operators", "schema_json", "query", "current_date", "ast_json", "is_valid"} | {
    *("validation_error", "error_type", "teacher_model", "split", "language", "kind", "accepted", "source")
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    settings = small_settings(tmp_path_factory.mktemp("dataset"))
    return settings, read_jsonl(write_dataset(settings))


def test_every_row_has_the_contract_s_fields_and_a_valid_answer(made):
    _, rows = made
    assert all(set(row) == FIELDS for row in rows)
    for row in rows:
        compiled = compile_schema(json.loads(row["schema_json"]))
        assert judge(row["ast_json"], compiled).schema_valid and row["is_valid"]
        assert json.loads(row["ast_json"])["prompt"] == row["query"]
    assert {row["teacher_model"] for row in rows} == {"embedded-teacher"} and {row["source"] for row in rows} == {
        "teacher"
    }


def test_splits_are_by_schema_and_large_enough(made):
    _, rows = made
    counts = Counter(row["split"] for row in rows)
    schemas = {split: {row["schema_id"] for row in rows if row["split"] == split} for split in counts}
    assert {split: len(ids) for split, ids in schemas.items()} == {
        **{"train": 5, "test_seen": 5},
        **{"validation": 1, "test_unseen": 2},
    }
    assert schemas["test_seen"] == schemas["train"]
    assert not schemas["test_unseen"] & schemas["train"] and not schemas["validation"] & schemas["train"]
    assert counts == {"train": 60, "validation": 6, "test_seen": 20, "test_unseen": 20}


def test_requests_for_pairs_are_of_training_schemas_and_stand_in_no_other_split(tmp_path):
    rows = read_jsonl(write_dataset(small_settings(tmp_path, pair_queries=3)))
    kept = [row for row in rows if row["split"] == "alignment"]
    assert Counter(row["schema_id"] for row in kept) == dict.fromkeys(
        {row["schema_id"] for row in rows if row["split"] == "train"}, 3
    )
    assert not {row["query"] for row in kept} & {row["query"] for row in rows if row["split"] != "alignment"}


def test_no_request_stands_twice(made):
    _, rows = made
    assert len({normalized(row["query"]) for row in rows}) == len(rows)


def test_refusals_and_french_come_in_their_shares(made):
    _, rows = made
    train = Counter(row["kind"] for row in rows if row["split"] == "train")
    assert (
        sum(train.values()) - train["answerable"] == 9
        and abs(train["missing_field"] - train["unsupported_operator"]) <= 1
    )
    assert 0.2 < sum(row["language"] == "fr" for row in rows) / len(rows) < 0.35
    for row in rows:
        answer = json.loads(row["ast_json"])
        assert ("refusal" in answer) == (row["kind"] != "answerable")
        if "refusal" in answer:
            assert suggests_a_field(answer, json.loads(row["schema_json"]))


def test_dates_are_drawn_from_the_range_that_was_set(tmp_path):
    settings = small_settings(tmp_path, train_queries=3, date_start="2031-05-01", date_end="2031-05-04")
    dates = {row["current_date"] for row in read_jsonl(write_dataset(settings))}
    assert dates == {f"2031-05-0{day}" for day in (1, 2, 3, 4)}


def test_the_seed_decides_the_rows(made, tmp_path):
    _, rows = made
    assert read_jsonl(write_dataset(small_settings(tmp_path / "same"))) == rows
    others = read_jsonl(write_dataset(small_settings(tmp_path / "other", seed=99)))
    assert {row["query"] for row in others} != {row["query"] for row in rows}


def test_a_finished_dataset_is_left_alone_and_another_is_refused(made, capsys):
    settings, _ = made
    write_dataset(settings)
    assert "done already" in capsys.readouterr().out
    with pytest.raises(UserError, match="train_queries was 12, now 13"):
        write_dataset(settings.changed(train_queries=13))


def test_meta_records_the_teacher_and_the_counts(made):
    settings, rows = made
    meta = read_meta(paths(settings).dataset)
    assert meta["teacher_info"]["display_name"] == "embedded rule-based teacher (not an LLM)"
    assert meta["teacher_info"]["format"] == "honored" and len(meta["teacher_info"]["model_digest"]) == 64
    assert sum(split["rows"] for split in meta["counts"].values()) == len(rows)
    assert meta["inputs"]["d_02_final_schemas.jsonl"]


def test_meta_and_the_last_line_say_what_the_teacher_cost(tmp_path, capsys):
    settings = small_settings(tmp_path, teacher_agreement=2)  # the embedded teacher is asked once
    rows = read_jsonl(write_dataset(settings))
    first = read_meta(paths(settings).dataset)["teacher_usage"]
    assert len(rows) < first["asked"] == first["requests"] < 2 * len(rows) and first["cache_hits"] == 0
    assert first["cost"]["prompt_tokens"] > 0 and first["cost_a_row"]["answer_tokens"] > 0
    write_dataset(settings.changed(overwrite=True))
    again = read_meta(paths(settings).dataset)["teacher_usage"]
    assert (again["asked"], again["cache_hits"]) == (0, first["asked"]) and again["cost"] == first["cost"]
    said = capsys.readouterr().out
    assert f"teacher: {first['asked']} questions in {first['requests']} requests, 0 answers from disk" in said
    assert f"teacher: 0 questions in 0 requests, {first['asked']} answers from disk" in said
    assert f"a row of the {len(rows)} kept: " in said
    assert read_jsonl(rejected_answers_path(paths(settings).dataset)) == []


# Interruption


class Killed(BaseException):
    """A kill that a test survives."""


@pytest.mark.parametrize("at", [0, 1, 37, 105])
def test_a_killed_run_continues_to_the_same_rows(at, made, tmp_path, monkeypatch):
    _, rows = made
    settings = small_settings(tmp_path)
    append, count = Artifact.append, iter(range(10_000))

    def append_until(artifact, row):
        if next(count) == at:
            with artifact.path.open("a") as file:
                file.write(json.dumps(row)[:50])  # torn
            raise Killed
        append(artifact, row)

    monkeypatch.setattr(Artifact, "append", append_until)
    with pytest.raises(Killed):
        write_dataset(settings)
    monkeypatch.setattr(Artifact, "append", append)
    assert read_jsonl(write_dataset(settings)) == rows
    assert read_jsonl(rejected_path(paths(settings).dataset)) == []


def test_sigkill_and_the_same_command_give_the_same_file(made, tmp_path):
    settings, _ = made
    small_settings(tmp_path)
    program = (
        "from schema_student.core.settings import default_settings\n"
        "from schema_student.data.dataset import write_dataset\n"
        f"write_dataset(default_settings(output_dir={str(tmp_path)!r}, **{SMALL!r}))"
    )
    target = paths(settings.changed(output_dir=str(tmp_path))).dataset
    process = Program("-c", program)
    while not (target.exists() and target.stat().st_size > 100_000):
        assert not process.has_ended(), process.end()
        time.sleep(0.002)
    process.strike(signal.SIGKILL)
    assert process.end().code == -signal.SIGKILL
    assert run_program("-c", program).code == 0
    assert target.read_bytes() == paths(settings).dataset.read_bytes()


def test_a_second_writer_is_refused(made, tmp_path, monkeypatch):
    settings = small_settings(tmp_path)
    seen = []

    def try_again(*args):
        with pytest.raises(UserError, match="is being written by process") as caught:
            write_dataset(settings)
        seen.append(caught)
        raise Killed

    monkeypatch.setattr("schema_student.data.dataset.plan_quotas", try_again)
    with pytest.raises(Killed):
        write_dataset(settings)
    assert seen


# Rejection


def asker(answers):
    """Teacher.ask_many that lets answers(role, payload, truth) spoil what the embedded teacher says."""
    honest = Teacher.ask_many

    def ask_many(self, asks, progress=""):
        return [answers(role, payload, truth) for (role, payload), truth in zip(asks, honest(self, asks), strict=True)]

    return ask_many


@pytest.mark.parametrize(
    ("spoil", "error_type", "reason"),
    [
        (lambda answer: {**answer, "steps": []}, "minItems", "/steps"),
        (lambda answer: {"refusal": {"reason": "no", "suggestion": "ask by moon"}}, "refused", "was refused"),
        (lambda answer: TeacherFailure("answer", "it is tired"), "no_answer", "it is tired"),
    ],
)
def test_rejected_rows_are_counted_and_asked_for_again(spoil, error_type, reason, tmp_path, monkeypatch, capsys):
    calls = iter(range(10_000))

    def answers(role, payload, truth):
        spoiled = role == "answer" and "refusal" not in truth and next(calls) % 5 == 0
        return spoil(truth) if spoiled else truth

    monkeypatch.setattr(Teacher, "ask_many", asker(answers))
    settings = small_settings(tmp_path)
    rows = read_jsonl(write_dataset(settings))
    rejected = read_jsonl(rejected_path(paths(settings).dataset))
    assert Counter(row["split"] for row in rows) == {"train": 60, "validation": 6, "test_seen": 20, "test_unseen": 20}
    assert len(rejected) >= 15 and {row["error_type"] for row in rejected} == {error_type}
    assert all(reason in row["validation_error"] and not row["is_valid"] for row in rejected)
    assert f"({error_type} {len(rejected)})" in capsys.readouterr().out
    assert read_meta(paths(settings).dataset)["rejected"] == {error_type: len(rejected)}


def test_a_teacher_that_repeats_itself_is_asked_again_and_every_repetition_is_counted(tmp_path, monkeypatch):
    """The first request of each batch comes three times: as it is, in capitals, and with one word more."""
    padding = "and besides that I would be glad to have them all on one single page if that can be done by you"

    def answers(role, payload, truth):
        if role != "query":
            return truth
        first, *others = truth["queries"]
        return {"queries": [f"{first} {padding}", f"{first} {padding}".upper(), f"{first} {padding} today", *others]}

    monkeypatch.setattr(Teacher, "ask_many", asker(answers))
    settings = small_settings(tmp_path, refusal_fraction=0.0, train_queries=6, eval_queries=6)
    where = paths(settings).dataset
    rows = read_jsonl(write_dataset(settings))
    rejected = Counter(row["error_type"] for row in read_jsonl(rejected_path(where)))
    assert rejected["duplicate"] and rejected["near_duplicate"] and rejected["test_overlap"]
    assert read_meta(where)["rejected"] == dict(rejected)
    requests = RequestIndex(settings.dataset.near_duplicate, settings.dataset.test_overlap)
    for row in rows:
        assert requests.find_problem(row["query"], row["split"]) is None
        requests.add(row["query"], row["split"])


def test_refusals_that_answer_or_suggest_nothing_are_rejected(tmp_path, monkeypatch):
    step = [{"name": "a", "description": "", "conditions": []}]

    def answers(role, payload, truth):
        if role != "answer" or "refusal" not in truth:
            return truth
        bad = len(truth["refusal"]["reason"]) % 2
        useless = {"reason": "no", "suggestion": "ask by moon phase"}
        return {"prompt": "?", "refusal": useless} if bad else {"prompt": "?", "steps": step}

    monkeypatch.setattr(Teacher, "ask_many", asker(answers))
    settings = small_settings(tmp_path)
    rows = read_jsonl(write_dataset(settings))
    rejected = Counter(row["error_type"] for row in read_jsonl(rejected_path(paths(settings).dataset)))
    assert {row["kind"] for row in rows} == {"answerable"}
    assert rejected["suggestion"] and rejected["minItems"]


def test_no_valid_teacher_row_at_all_is_an_error_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(Teacher, "ask_many", asker(lambda role, p, truth: {} if role == "answer" else truth))
    settings = small_settings(tmp_path, train_queries=2, eval_queries=2)
    with pytest.raises(UserError, match=r"no valid teacher row at all .*required.*d_03_rejected\.jsonl"):
        write_dataset(settings)
    assert not read_meta(paths(settings).dataset)


def test_a_schema_that_supports_every_operator_gets_other_refusals(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Teacher,
        "ask_many",
        asker(
            lambda role, p, truth: TeacherFailure(role, "cannot") if p.get("kind") == "unsupported_operator" else truth
        ),
    )
    settings = small_settings(tmp_path)
    kinds = Counter(row["kind"] for row in read_jsonl(write_dataset(settings)) if row["split"] == "train")
    assert kinds == {"answerable": 51, "missing_field": 9}


# The user's own schemas


def test_own_queries_are_the_truth_of_the_tests(tmp_path):
    rows = [
        {
            "schema_id": f"s{i}",
            "schema": city_schema(f"city{i}"),
            "query": f"{place} for {i + 1} days",
            "answer": answer,
            **({"current_date": "2019-05-01"} if place == "Oslo" else {}),
        }
        for i in range(10)
        for place in ("Paris", "Rome", "Oslo", "Bern")
        for answer in [{f"city{i}": place, "days": i + 1}]
    ]
    settings = small_settings(tmp_path, schemas=write_own(tmp_path / "own.jsonl", rows), train_queries=3)
    made = read_jsonl(write_dataset(settings))
    counts = Counter((row["split"], row["source"]) for row in made)
    assert counts == {
        **{("train", "user"): 14, ("test_seen", "user"): 14, ("train", "teacher"): 21},
        **{("validation", "user"): 4, ("test_unseen", "user"): 8},
    }
    assert {row["language"] for row in made} == {"en"} and {row["kind"] for row in made} == {"answerable"}
    assert all(
        (row["current_date"] == "2019-05-01") == row["query"].startswith("Oslo")
        for row in made
        if row["source"] == "user"
    )
    assert len({row["query"] for row in made}) == len(made)


def test_schemas_without_queries_get_them_from_the_teacher_in_every_split(tmp_path):
    folder = tmp_path / "schemas"
    folder.mkdir()
    for i in range(6):
        (folder / f"s{i}.json").write_text(json.dumps(city_schema(f"city{i}")))
    settings = small_settings(tmp_path / "out", schemas=str(folder), train_queries=5, eval_queries=8)
    counts = Counter(row["split"] for row in read_jsonl(write_dataset(settings)))
    assert counts == {"train": 20, "validation": 3, "test_seen": 8, "test_unseen": 8}


def test_one_schema_alone_is_split_by_queries(tmp_path, capsys):
    own = write_own(tmp_path / "own.jsonl", [{"schema_id": "one", "schema": city_schema("city")}])
    made = read_jsonl(write_dataset(small_settings(tmp_path, schemas=own, train_queries=30, eval_queries=8)))
    assert Counter(row["split"] for row in made) == {"train": 30, "validation": 32, "test_seen": 8}
    assert "note: test_unseen is empty" in capsys.readouterr().out


def test_one_own_query_leaves_no_split_empty(tmp_path):
    rows = [{"schema_id": "one", "schema": city_schema("city"), "query": "x", "answer": {"city": "y", "days": 2}}]
    own = write_own(tmp_path / "own.jsonl", rows)
    made = read_jsonl(write_dataset(small_settings(tmp_path, schemas=own, train_queries=4, eval_queries=8)))
    counts = Counter(row["split"] for row in made)
    assert counts["train"] == 5 and counts["test_seen"] == 8 and counts["validation"] >= 8


def test_of_many_own_schemas_each_gets_less():
    def sized(count, **changes):
        sources = [Source(f"s{i}", "d", [], {}, ()) for i in range(count)]
        settings = default_settings(schemas="own.jsonl", **changes)
        made = size_dataset(settings, "embedded", sources, dict.fromkeys((s.schema_id for s in sources), "train"))
        return made.dataset.train_queries, made.dataset.pair_queries

    auto = read_auto("embedded")
    assert sized(3) == (300, auto["pair_queries"])
    assert sized(300) == (OWN_MODE_ROWS // 300, math.ceil(OWN_PAIR_SHARE * auto["pair_prompts"] / 300))
    assert sized(300, train_queries=7, pair_queries=9) == (7, 9)
    assert sized(5000)[0] == 2


def test_a_large_base_on_a_cpu_gets_as_many_rows_as_its_training_can_take(tmp_path):
    base = shutil.copytree(EMBEDDED_STUDENT, tmp_path / "base")  # any base but the embedded one
    settings = small_settings(tmp_path, base_model=str(base), train_queries="auto", eval_queries=2)
    meta = read_meta(write_dataset(settings))
    assert meta["settings"]["train_queries"] == read_auto("gemma_cpu")["train_queries"]
    assert read_auto("gemma_cpu")["train_queries"] < read_auto("embedded")["train_queries"]


def test_trained_own_rows_leave_out_what_may_be_left_out_and_is_not_said_but_tests_keep_it(tmp_path):
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}}
    accepted = {"city": ["Rome"], "unit": ["", "Celsius"]}
    rows = [
        {"schema_id": "s", "schema": schema, "query": f"{word} in Rome", "answer": {"city": "Rome", "unit": "Celsius"}}
        for word in ("heat", "cold", "rain", "wind", "snow", "frost")
    ]
    own = write_own(tmp_path / "own.jsonl", [{**row, "accepted": accepted} for row in rows])
    made = read_jsonl(write_dataset(small_settings(tmp_path, schemas=own, train_queries=1, eval_queries=1)))
    found = {
        split: {row["ast_json"] for row in made if (row["source"], row["split"]) == ("user", split)}
        for split in ("train", "test_seen")
    }
    assert found == {"train": {'{"city":"Rome"}'}, "test_seen": {'{"city":"Rome","unit":"Celsius"}'}}


def test_own_queries_without_an_answer_are_given_to_the_teacher(tmp_path):
    rows = [{"schema_id": "s", "schema": city_schema("city"), "query": "somewhere nice, a week"}]
    settings = small_settings(
        tmp_path, schemas=write_own(tmp_path / "own.jsonl", rows), train_queries=4, eval_queries=4
    )
    made = read_jsonl(write_dataset(settings))
    assert {row["source"] for row in made} == {"teacher"}
    rejected = read_jsonl(rejected_path(paths(settings).dataset))
    assert [row["query"] for row in rejected] == ["somewhere nice, a week"]
    assert rejected[0]["error_type"] == "no_answer" and "did not write this request" in rejected[0]["validation_error"]
    said = read_jsonl(rejected_answers_path(paths(settings).dataset))
    assert [row["try"] for row in said] == [1, 2, 3] and "did not write this request" in said[0]["answer"]


@pytest.mark.skipif(not BFCL.exists(), reason="the shared data are not here")
def test_real_requests_keep_their_alternatives_and_do_not_leak(tmp_path):
    settings = small_settings(tmp_path, schemas=str(BFCL), train_queries=1)
    made = read_jsonl(write_dataset(settings))
    own = [row for row in made if row["source"] == "user"]
    assert len(own) > 390 and all(row["accepted"] for row in own) and {row["teacher_model"] for row in own} == {"user"}
    assert Counter(row["split"] for row in own)["test_unseen"] >= 80
    shapes = {
        split: {
            json.dumps(shape(json.loads(row["schema_json"])), sort_keys=True) for row in made if row["split"] == split
        }
        for split in ("train", "test_unseen")
    }
    assert not shapes["train"] & shapes["test_unseen"]


def own_request(name, city, split=None, schema=None):
    schema = schema or city_schema(f"city_{name}")
    row = {"schema_id": name, "schema": schema, "query": f"{city}, two days of {name}"}
    row |= {"answer": {next(iter(schema["properties"])): city, "days": 2}}
    return row | ({"split": split} if split else {})


def splits_of_own(made):
    return {row["query"].partition(",")[0]: row["split"] for row in made if row["source"] == "user"}


def test_a_split_that_a_row_names_is_kept(tmp_path, capsys):
    named = {"Paris": "train", "Rome": "Training", "Oslo": "dev", "Bern": "test", "Turin": "val", "Lyon": "test_set"}
    rows = [own_request("trips", city, split) for city, split in named.items()]
    rows += [own_request("tours", city, "test") for city in ("Nice", "Metz", "Brest")]
    same_shape = {**city_schema("city_trips"), "title": "in other words"}
    rows += [own_request("walks", "Graz", "test", same_shape)]
    rows += [own_request("stays", city, "validation") for city in ("Linz", "Wels")]
    rows += [own_request("stays", "Enns", "test")]  # a schema that checkpoints are chosen by is not unseen
    settings = small_settings(tmp_path, schemas=write_own(tmp_path / "own.jsonl", rows), train_queries=3)
    made = read_jsonl(write_dataset(settings))
    assert splits_of_own(made) == {
        **dict.fromkeys(("Paris", "Rome"), "train"),
        **dict.fromkeys(("Oslo", "Turin", "Linz", "Wels"), "validation"),
        **dict.fromkeys(("Bern", "Lyon", "Graz", "Enns"), "test_seen"),
        **dict.fromkeys(("Nice", "Metz", "Brest"), "test_unseen"),
    }
    assert {row["split"] for row in made if row["source"] == "teacher"} == {"train"}
    assert "train 2, validation 4, test 7; without a split 0" in capsys.readouterr().out


def test_rows_without_a_split_are_split_beside_those_with_one(tmp_path, capsys):
    rows = [own_request("trips", f"City{i}", "test" if i < 3 else None) for i in range(23)]
    settings = small_settings(tmp_path, schemas=write_own(tmp_path / "own.jsonl", rows), train_queries=1)
    found = splits_of_own(read_jsonl(write_dataset(settings)))
    assert [found[f"City{i}"] for i in range(3)] == ["test_seen"] * 3
    assert Counter(found.values()) == {"train": 10, "validation": 2, "test_seen": 11}
    assert "none of your requests is of split validation: checkpoints are chosen by" in capsys.readouterr().err


def test_a_test_that_stands_in_training_too_is_a_test_alone(tmp_path):
    rows = [own_request("trips", city, split) for city in ("Paris", "Rome", "Oslo") for split in ("train", "test")]
    rows += [own_request("trips", city, "train") for city in ("Metz", "Nice")]
    settings = small_settings(tmp_path, schemas=write_own(tmp_path / "own.jsonl", rows), train_queries=2)
    made = read_jsonl(write_dataset(settings))
    assert splits_of_own(made) == {
        **dict.fromkeys(("Paris", "Rome", "Oslo"), "test_seen"),
        **dict.fromkeys(("Metz", "Nice"), "train"),
    }
    rejected = read_jsonl(rejected_path(paths(settings).dataset))
    assert Counter(row["error_type"] for row in rejected if row["source"] == "user") == {"duplicate": 3}


def test_tests_alone_leave_nothing_to_train_on(tmp_path):
    rows = [own_request("trips", "Paris", "test"), own_request("stays", "Rome", "validation")]
    with pytest.raises(UserError, match=r"nothing is left to train on.*--eval-data"):
        write_dataset(small_settings(tmp_path, schemas=write_own(tmp_path / "own.jsonl", rows)))


def test_schemas_that_differ_in_words_only_stay_together(tmp_path):
    rows = []
    for i in range(12):
        schema = city_schema(f"city{i // 2}")
        rows.append({"schema_id": f"s{i}", "schema": {**schema, "description": f"number {i}"}})
    sources = read_user_schemas(Path(write_own(tmp_path / "own.jsonl", rows)))
    splits = split_schemas(sources, default_settings())
    assert all(splits[f"s{i}"] == splits[f"s{i + 1}"] for i in range(0, 12, 2))
    assert Counter(splits.values()) == {"train": 8, "test_unseen": 2, "validation": 2}


def test_a_shape_keeps_properties_that_are_called_like_annotations():
    schema = {"title": "x", "properties": {"title": {"type": "string", "description": "y"}, "default": {"const": 1}}}
    assert shape(schema) == {"properties": {"title": {"type": "string"}, "default": {"const": 1}}}


def test_keys_come_in_the_schema_s_order():
    schema = {
        "$defs": {"point": {"properties": {"y": {}, "x": {}}}},
        "properties": {"b": {"items": {"$ref": "#/$defs/point"}}, "a": {}},
    }
    value = {"z": 1, "a": 2, "b": [{"x": 1, "y": 2}]}
    assert json.dumps(in_schema_order(value, schema)) == '{"b": [{"y": 2, "x": 1}], "a": 2, "z": 1}'


def test_keys_come_in_the_order_of_the_alternative_that_a_value_goes_by():
    calls = [
        {"properties": {"name": {"const": tool}, "arguments": {"properties": {key: {} for key in order}}}}
        for tool, order in (("f", "ab"), ("g", "ba"))
    ]
    for tool, text in (("f", '{"a": 1, "b": 2}'), ("g", '{"b": 2, "a": 1}')):
        value = {"arguments": {"b": 2, "a": 1}, "name": tool}
        ordered = in_schema_order(value, {"oneOf": calls})
        assert json.dumps(ordered) == f'{{"name": "{tool}", "arguments": {text}}}'
    near = {"properties": {"kind": {"const": "x"}, "name": {"const": "f"}, "arguments": {}}}  # of its consts one alone
    far = {"properties": {"kind": {"const": "x"}, "arguments": {}, "name": {"const": "g"}}}
    ordered = in_schema_order({"name": "g", "arguments": {}, "kind": "x"}, {"oneOf": [near, far]})
    assert list(ordered) == ["kind", "arguments", "name"]
    both = {"allOf": [{"properties": {"b": {}}}, {"properties": {"a": {}}}], "additionalProperties": calls[0]}
    value = {"a": 1, "b": 2, "c": {"arguments": {}, "name": "f"}}
    assert json.dumps(in_schema_order(value, both)) == '{"b": 2, "a": 1, "c": {"name": "f", "arguments": {}}}'
    assert in_schema_order([1, {"b": 1}], {"prefixItems": [{}, {"$ref": "#"}]}) == [1, {"b": 1}]


# ---------------------------------------------------------------------------------------------------------------------
# Extra tests


def test_extra_tests_are_fresh_of_seen_and_unseen_schemas_and_disjoint_from_all_else(tmp_path):
    settings = small_settings(tmp_path, extra_tests=60)
    rows, extra = read_jsonl(write_dataset(settings)), read_jsonl(write_extra_tests(settings))
    assert Counter(row["split"] for row in extra) == {"test_seen": 30, "test_unseen": 30}
    splits = {row["schema_id"]: row["split"] for row in rows if row["split"] in ("train", "test_unseen")}
    assert {(splits[row["schema_id"]], row["split"]) for row in extra} == {
        ("train", "test_seen"),
        ("test_unseen", "test_unseen"),
    }
    index = RequestIndex(settings.dataset.near_duplicate, settings.dataset.test_overlap)
    for row in rows:
        index.add(row["query"], row["split"])
    for row in extra:
        assert index.find_problem(row["query"], row["split"]) is None
        index.add(row["query"], row["split"])
        assert judge(row["ast_json"], compile_schema(json.loads(row["schema_json"]))).schema_valid
    refused = sum(row["kind"] != "answerable" for row in extra) / len(extra)
    assert refused == pytest.approx(settings.dataset.refusal_fraction, abs=0.04)
    assert read_jsonl(paths(settings).dataset) == rows  # which it leaves as it was


def test_extra_tests_are_made_again_of_another_number_alone_where_that_is_asked_for(tmp_path):
    settings = small_settings(tmp_path, extra_tests=8)
    write_dataset(settings)
    first = write_extra_tests(settings).read_bytes()
    assert write_extra_tests(settings).read_bytes() == first
    write_dataset(settings.changed(extra_tests=0))
    with pytest.raises(UserError, match="extra_tests was 8, now 10"):
        write_extra_tests(settings.changed(extra_tests=10))


def test_a_part_of_the_rows_is_the_users_requests_and_what_is_left_to_ask_for():
    source = Source("s", "d", [], {})
    own = {"train": [(source, f"row {i}") for i in range(3)], "test_seen": [(source, "test")]}
    quotas = {Quota(source, split, "answerable", "en"): 4 for split in ("train", "test_seen")}
    for limit, mine, asked in ((2, [2, 1], {"test_seen": 1}), (5, [3, 1], {"train": 2, "test_seen": 4})):
        taken, rest = take_part_of_rows(own, quotas, limit)
        assert [*map(len, taken.values())] == mine and {quota.split: n for quota, n in rest.items()} == asked
    assert take_part_of_rows(own, quotas, 0) == (own, quotas)
