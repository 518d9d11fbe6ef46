"""The teacher corrects what a student answers to requests that nobody answered, within a budget of questions."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from hotel_requests import FORM

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, Pair, read_rows, write_rows
from schema_student.preference import corrections
from schema_student.preference.corrections import Answered, correct, is_corrected, make_pair
from schema_student.preference.requests import Request
from schema_student.schema.compiling import SchemaError
from schema_student.student.choice import base_digest, resolve_student
from schema_student.student.generated import Generation
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.embedded.identity import MODEL
from schema_student.teacher.faults import TeacherFailure

RIGHT, WRONG, INVALID = '{"city":"Lyon","nights":2}', '{"city":"Paris"}', '{"city":"Rome"}'
ANSWER = {"city": "Lyon", "nights": 2}


def answered(text, finished=True, query="two nights in Lyon"):
    row = DatasetRow(
        schema_id="form",
        schema_json=json.dumps(FORM),
        query=query,
        current_date="2026-01-31",
        ast_json=None,
        is_valid=True,
        split="alignment",
    )
    return Answered(Request(row, f"prompt of {query}"), text, finished)


class Teacher:
    """Finds RIGHT good, answers with ANSWER, fails where the request says so; remembers its questions."""

    def __init__(self):
        self.asked = []

    def ask_many(self, asks):
        self.asked += asks
        return [self.answer(*ask) for ask in asks]

    def answer(self, role, payload):
        if payload["query"] == "fail":
            return TeacherFailure(role, "no")
        return {"is_good": payload["answer"] == ANSWER, "reason": ""} if role == "judge" else ANSWER


def test_what_the_schema_rejects_and_what_the_teacher_finds_wrong_is_corrected():
    teacher = Teacher()
    rows, counts = correct(
        [answered(RIGHT), answered(WRONG), answered(INVALID), answered(RIGHT, False)], teacher.ask_many, 99
    )
    assert [(row["source"], row["answer"]) for row in rows] == [("student", ANSWER), *[("teacher", ANSWER)] * 3]
    assert [row.get("rejected") for row in rows] == [None, WRONG, INVALID, RIGHT]
    assert [role for role, _ in teacher.asked] == ["judge", "judge", "answer", "answer", "answer"]
    assert counts == {"found right": 1, "corrected, valid but wrong before": 1, "corrected, invalid before": 2}
    assert [row["rejected"] for row in filter(is_corrected, rows)] == [WRONG, INVALID]  # what was cut off has no end


@pytest.mark.parametrize("questions", [1, 2, 3, 4, 5, 6, 7])
def test_no_more_is_asked_than_the_budget_allows_and_invalid_answers_come_first(questions):
    teacher = Teacher()
    given = [answered(WRONG), answered(WRONG), answered(INVALID), answered(WRONG), answered(INVALID)]
    rows, counts = correct(given, teacher.ask_many, questions)
    assert len(teacher.asked) <= questions
    assert counts["corrected, invalid before"] == min(2, questions)
    assert counts["corrected, valid but wrong before"] == max(0, questions - 2) // 2
    assert counts.total() == 5 and len(rows) == 5 - counts["not asked about"]


def test_where_the_teacher_fails_a_request_stays_without_an_answer():
    rows, counts = correct([answered(WRONG, query="fail"), answered(INVALID, query="fail")], Teacher().ask_many, 9)
    assert rows == [] and counts == {"without an answer of the teacher": 2}
    failing = Teacher()
    failing.answer = lambda role, payload: TeacherFailure(role, "no") if role == "answer" else {"is_good": False}
    assert correct([answered(WRONG)], failing.ask_many, 2) == ([], {"without an answer of the teacher": 1})
    counts = correct([answered(RIGHT), answered(RIGHT)], Teacher().ask_many, 3)[1]
    assert counts == {"found right": 1, "not asked about": 1}


def test_the_teacher_is_asked_with_the_schema_and_a_row_says_what_was_wrong():
    teacher = Teacher()
    rows, counts = correct([answered(RIGHT), answered(INVALID, False)], teacher.ask_many, 9)
    question = {"schema": FORM, "query": "two nights in Lyon", "current_date": "2026-01-31"}
    assert teacher.asked == [("judge", {**question, "answer": ANSWER}), ("answer", question)]
    head = {**question, "schema_id": "form", "answer": ANSWER, "prompt": "prompt of two nights in Lyon"}
    assert rows == [
        {**head, "source": "student"},
        {**head, "source": "teacher", "rejected": INVALID, "finished": False},
    ]
    assert corrections.describe(counts + Counter({"a": 2})) == "2 a, 1 corrected, invalid before, 1 found right"


def test_a_pair_prefers_the_teachers_answer_to_the_students():
    rows, _ = correct([answered(INVALID), answered(" \n")], Teacher().ask_many, 9)
    assert make_pair(rows[0]) == Pair(
        prompt="prompt of two nights in Lyon",
        chosen=RIGHT,
        rejected=INVALID,
        schema_id="form",
        source="greedy",
        chosen_source="teacher",
    )
    assert [is_corrected(row) for row in rows] == [True, False]  # of an empty text nothing is learned


def test_fences_are_stripped_where_they_are_asked_to_be():
    fenced = f"```json\n{RIGHT}\n```"
    assert not answered(fenced).valid and replace(answered(fenced), strip_fences=True).valid
    odd = replace(answered(RIGHT).request.row, schema_json='{"type": 7}')
    with pytest.raises(SchemaError, match=r"^form: "):
        replace(answered(RIGHT), request=Request(odd, "p")).valid  # noqa: B018


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A teacher, and a student that writes INVALID to one request and RIGHT to the other."""
    asked = tmp_path / "asked.jsonl"
    queries = ["two nights in Lyon", "three nights in Lyon", "known"]
    rows = [{"query": query, "schema": FORM, "current_date": "2026-01-31"} for query in queries]
    write_jsonl(asked, [*rows[:2], {**rows[2], "answer": ANSWER}])
    made = tiny.tiny_settings(tmp_path, teacher_model=MODEL, requests=str(asked))
    folder = paths(made).sft_checkpoint
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(corrections, "check_adapter", lambda *given: None)
    monkeypatch.setattr(corrections, "load_student", lambda *given, **more: None)
    texts = {"two": INVALID, "three": RIGHT}

    def generate(student, prompts, *given, **more):
        assert given == (64, 8) and more == {"progress": "answering"}
        words = [prompt.split("Request: ")[1].split()[0] for prompt in prompts]
        return [[Generation(texts[word], 1, True, 0.0)] for word in words]

    monkeypatch.setattr("schema_student.student.generation.generate", generate)
    monkeypatch.setattr(corrections, "open_teacher", lambda settings: nullcontext(Teacher()))
    return made


def test_rows_and_pairs_are_written_and_a_finished_round_is_not_asked_again(settings, monkeypatch, capsys):
    path = corrections.correct_requests(settings)
    assert path == paths(settings).corrections / "answered_requests.jsonl"
    said = "  2 of 2 requests have an answer now: 1 corrected, invalid before, 1 found right\n"
    assert said in capsys.readouterr().out
    meta, groups = read_meta(path), "loading length generation prompt verdict answers corrections".split()
    assert meta["settings"] == resolve_student(settings)[1].dump(*groups)
    assert meta["counts"] == {"corrected, invalid before": 1, "found right": 1}
    assert meta["teacher"] == resolve_teacher(settings).stamp
    assert meta["base_digest"] == base_digest(settings.student.base_model)
    assert [*meta["inputs"]] == ["asked.jsonl", "adapter_model.safetensors"]
    rows = read_jsonl(path)
    assert [(row["query"].split()[0], row["source"]) for row in rows] == [("two", "teacher"), ("three", "student")]
    pairs = read_rows(path.with_name("corrected_pairs.jsonl"), Pair)
    assert len(pairs) == 1 and pairs[0].rejected == INVALID and json.loads(pairs[0].chosen) == rows[0]["answer"]
    monkeypatch.setattr(corrections, "answer_requests", None)
    assert corrections.correct_requests(settings) == path
    with pytest.raises(TypeError, match="not callable"):
        corrections.correct_requests(settings.changed(overwrite=True))


def test_a_request_may_name_a_schema_of_the_run_and_fences_are_stripped_by_the_setting(settings):
    asked = Path(settings.open_requests.requests)
    known = replace(answered("").request.row, schema_id="of the run", split="train", ast_json=RIGHT)
    write_rows(paths(settings).dataset, [known])
    write_jsonl(asked, [{"query": "two nights in Lyon", "schema_id": "of the run"}])
    resolved = resolve_student(settings)[1]
    (found,) = corrections.answer_requests(resolved, asked)
    assert (found.request.row.schema, found.request.row.current_date) == (FORM, "2026-01-31")
    assert (found.text, found.finished, found.strip_fences) == (INVALID, True, False)
    write_jsonl(asked, [{"query": f"two {i}", "schema_id": "of the run"} for i in range(3)])
    (found,) = corrections.answer_requests(resolved.changed(strip_fences=True, max_samples=1), asked)
    assert found.strip_fences


def test_without_requests_it_is_refused(settings):
    with pytest.raises(UserError, match="correct needs --requests FILE"):
        corrections.correct_requests(settings.changed(requests=""))
