"""Evaluation reads right answers first: the same verdicts as with every answer written, and the likelihood of each."""

import json
import math
from types import SimpleNamespace

import pytest
from alignment_runs import ANSWER, settings_with_requests
from hotel_requests import FORM, dataset_row

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.progress import Progress
from schema_student.core.records import DatasetRow
from schema_student.evaluation import completions
from schema_student.evaluation.evaluate import evaluate_student
from schema_student.schema.prompts import render_row_prompt
from schema_student.student import batching, reading
from schema_student.student.loading import load_student
from schema_student.teacher.faults import TeacherFailure

APART = ("read", "tokens", "seconds", "log_p", "least_sure")  # what writing an answer takes, and rounding


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The rows of one student, read and written, on requests that it answers right and others that it does not."""
    settings = settings_with_requests(tmp_path_factory.mktemp("reading"), judge_valid=False, sft_max_steps=60)
    where = paths(settings)
    rows = read_jsonl(where.dataset)
    tested = [row for row in rows if row["split"] == "test_seen"]
    others = [{**row, "ast_json": '{"n":8}', "query": f"{row['query']} more"} for row in tested]
    either = [{**row, "query": row["query"].replace("more", "or"), "accepted": {"n": [8, 7]}} for row in others]
    write_jsonl(where.dataset, rows + others + either)
    adapter = str(where.sft_checkpoint)
    evaluate_student(settings, "student-read", adapter)
    evaluate_student(settings.changed(answer_all=True), "student-written", adapter)
    found = [where.eval_dir(f"student-{how}") / "evaluation_results.jsonl" for how in ("read", "written")]
    return settings, *map(read_jsonl, found)


def test_verdicts_are_those_of_every_answer_written(evaluated):
    _, read, written = evaluated
    assert [row["read"] for row in read].count(True) == 8 and not any(row["read"] for row in written)
    assert [row["semantic_pass"] for row in written] == [True] * 4 + [False] * 4 + [True] * 4
    for mine, theirs in zip(read, written, strict=True):
        assert {**mine, **dict.fromkeys(APART)} == {**theirs, **dict.fromkeys(APART)}


def test_what_was_begun_by_reading_is_not_gone_on_with_by_writing(evaluated):
    settings, adapter = evaluated[0], str(paths(evaluated[0]).sft_checkpoint)
    with pytest.raises(UserError, match="answer_all"):
        evaluate_student(settings.changed(answer_all=True), "student-read", adapter)
    with pytest.raises(UserError, match="answer_all"):
        evaluate_student(settings, "student-written", adapter)


def test_the_likelihood_of_right_answers_is_that_of_each_alone(evaluated):
    settings, read, _ = evaluated
    student = load_student(settings, adapter=str(paths(settings).sft_checkpoint))
    student.model.eval()
    row = read[-1]

    def p(text):
        ids = batching.encode(student.tokenizer, row["prompt_text"], text)
        (found,) = reading.read_answers(student, [[ids]], 1, 4096, False, None)
        return found.p_truth

    assert row["accepted"] == {"n": [8, 7]} and p(ANSWER) > 0.3
    assert row["p_truth"] == pytest.approx(p(ANSWER) + p('{"n":8}'), abs=1e-5)
    first = json.dumps(row["target"], separators=(",", ":"))
    assert math.exp(row["reference_logp"]) == pytest.approx(p(first), abs=1e-5)
    assert row["reference_tokens"] == len(first) + 1  # bytes, and the end of the turn


def test_the_probability_of_an_answer_and_of_its_least_sure_tokens_is_the_same_read_or_written(evaluated):
    _, read, written = evaluated
    for mine, theirs in zip(read, written, strict=True):
        assert mine["log_p"] == pytest.approx(theirs["log_p"], abs=5e-3) and mine["log_p"] < 0
        assert len(mine["least_sure"]) == min(3, len(mine["least_sure"])) > 0
        least = [each["probability"] for each in mine["least_sure"]]
        assert least == pytest.approx([each["probability"] for each in theirs["least_sure"]], abs=5e-3)
        assert least == sorted(least) and math.exp(mine["log_p"]) <= least[0] + 1e-4
        for each in mine["least_sure"]:
            assert 0 <= each["place"] < mine["tokens"] and each["token"] in mine["raw_output"] + "<end_of_turn>"
    unsure = [each for row in written for each in row["least_sure"] if each["probability"] < 0.9]
    assert unsure and all(each["other"] and each["other"] != each["token"] for each in unsure)


def test_the_summary_has_the_mean_likelihood_and_counts_what_was_read(evaluated):
    settings, read, _ = evaluated
    summary = read_json(paths(settings).eval_dir("student-read") / "evaluation_summary.json")
    mean = math.fsum(row["p_truth"] for row in read) / len(read)
    assert summary["overall"]["p_truth"] == pytest.approx(mean, abs=1e-6) and summary["speed"]["read"] == 8
    nats, tokens = (math.fsum(row[name] for row in read) for name in ("reference_logp", "reference_tokens"))
    assert summary["overall"]["reference_perplexity"] == pytest.approx(math.exp(-nats / tokens), abs=1e-6)
    written = [row for row in read if not row["read"]]
    assert summary["speed"]["tokens"] == sum(row["tokens"] for row in written)


def test_an_answer_that_is_not_sure_is_written(evaluated, monkeypatch):
    settings, _, written = evaluated
    monkeypatch.setattr(completions, "SURE", 0.0)
    evaluate_student(settings.changed(overwrite=True), "student-unsure", str(paths(settings).sft_checkpoint))
    found = read_jsonl(paths(settings).eval_dir("student-unsure") / "evaluation_results.jsonl")
    assert not any(row["read"] for row in found)
    assert [row["raw_output"] for row in found] == [row["raw_output"] for row in written]


def test_the_teacher_is_asked_as_for_a_data_set_and_may_fail(evaluated):
    rows = [dataset_row("one", {"city": "Lyon"}), dataset_row("two", {"city": "Lyon"}, language=None)]
    batch, settings = [DatasetRow.from_json(row) for row in rows], evaluated[0]
    asked = []

    def ask_many(asks):
        asked.extend(asks)
        return [{"city": "Paris"}, TeacherFailure("answer", "no JSON")]

    with Progress(total=2) as bar:
        found = completions.complete_by_teacher(SimpleNamespace(ask_many=ask_many), batch, settings, bar)
    assert bar.n == 2
    question = {"schema": FORM, "current_date": "2026-01-31", "language": "en", "batch": 0}
    assert asked == [("answer", {**question, "query": query}) for query in ("one", "two")]
    prompts = [render_row_prompt(row, "compact") for row in batch]
    fault = "the teacher gave no usable answer: no JSON"
    assert found == [
        completions.Completion(prompts[0], '{"city":"Paris"}'),
        completions.Completion(prompts[1], fault=fault, failed=True),
    ]


def test_extra_tests_are_evaluated_under_a_name_of_their_own(evaluated):
    from schema_student.core.paths import evaluated as name_of

    settings = evaluated[0].changed(eval_extra=True, eval_student="sft")
    where = paths(settings)
    tests = [row for row in read_jsonl(where.dataset) if row["split"] == "test_seen"][:2]
    write_jsonl(where.extra_tests, [{**row, "query": f"{row['query']} fresh"} for row in tests])
    name, adapter = name_of(settings)
    assert name == "student-sft-extra"
    evaluate_student(settings, name, adapter)
    rows = read_jsonl(where.eval_dir(name) / "evaluation_results.jsonl")
    assert [json.loads(json.dumps(row["query"])) for row in rows] == [f"{row['query']} fresh" for row in tests]
