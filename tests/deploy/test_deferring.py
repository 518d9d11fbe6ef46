"""A server behind which a teacher stands: who answered is said in each answer and counted, and no answer is lost."""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
from served import served

from schema_student.evaluation import deferral
from schema_student.evaluation.confidence import Calibration
from schema_student.student.ask import Answer

FLAG = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
SURE, UNSURE = Calibration(50.0, 0.0), Calibration(-50.0, 0.0)  # whatever the log-probability


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    made = tiny.tiny_settings(tmp_path_factory.mktemp("base"), max_new_tokens=16, max_seq_length=512)
    return tiny.load_student(made)


@pytest.fixture
def teacher(monkeypatch):
    """A teacher that answers {"ok": true}, fails at "broken", and is gone at "gone"; and what it was asked."""
    asked = []

    def ask(questions, settings):
        asked.append([(each.request, each.day) for each in questions])
        if any("gone" in each.request for each in questions):
            raise RuntimeError("gone")
        return [Answer({"ok": True}, "broken" not in each.request, (), '{"ok":true}', 0, 0.0) for each in questions]

    monkeypatch.setattr(deferral, "ask_teacher", ask)
    return asked


@pytest.fixture
def serve(student, teacher):
    def serve(calibration, below=0.5):
        found = deferral.Deferral(student.settings.changed(teacher_model="embedded-teacher"), below, calibration)
        return served(student, deferral=found, constrained=True)

    return serve


def post(address, query, path="/v1/chat/completions", **more):
    wanted = {"type": "json_schema", "json_schema": {"name": "flag", "schema": FLAG}}
    body = {"model": "student", "messages": [{"role": "user", "content": query}], "response_format": wanted}
    body |= {"metadata": {"current_date": "2026-01-31"}, **more}
    asked = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        return reply.read().decode()


def health(address):
    with urllib.request.urlopen(f"{address}/health", timeout=60) as reply:
        return json.loads(reply.read())


def test_a_sure_student_answers_and_an_unsure_ones_requests_go_to_the_teacher(serve, teacher):
    with serve(SURE) as address:
        said = json.loads(post(address, "on?"))
        assert said["by"] == "student" and said["confidence"] == 1.0 and teacher == []
    with serve(UNSURE) as address:
        said = json.loads(post(address, "on?"))
        assert said["by"] == "embedded-teacher" and said["confidence"] < 1e-6 and said["verdict"]["valid"]
        assert said["choices"][0]["message"]["content"] == '{"ok":true}'
        assert teacher == [[("on?", "2026-01-31")]]
        assert health(address) == {"status": "ok", "answered": 1, "deferred": 1, "teacher_failed": 0}


def test_a_teacher_that_fails_leaves_the_students_answer_with_a_warning(serve, teacher):
    with serve(UNSURE) as address:
        for query in ("broken", "gone", "on?"):  # and the next one is answered again
            said = json.loads(post(address, query))
            failed = query != "on?"
            assert (said["by"] == "student") == failed and ("warning" in said) == failed and said["choices"]
        assert health(address)["teacher_failed"] == 2


def test_streams_give_the_teachers_answer_whole_and_say_who_gave_it(serve):
    with serve(UNSURE) as address:
        lines = [line[6:] for line in post(address, "on?", stream=True).splitlines() if line.startswith("data: {")]
        events = [json.loads(line) for line in lines]
        text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
        assert text == '{"ok":true}' and events[-1]["by"] == "embedded-teacher"


def test_many_requests_at_once_are_asked_together_and_a_conversation_is_not(serve, teacher):
    with serve(UNSURE) as address:
        with ThreadPoolExecutor(8) as pool:
            said = [json.loads(each) for each in pool.map(lambda i: post(address, f"on {i}?"), range(8))]
        assert all(each["by"] == "embedded-teacher" for each in said)
        assert sorted(each for some in teacher for each, _ in some) == sorted(f"on {i}?" for i in range(8))
        turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "on?"}]
        told = json.loads(post(address, "", messages=turns))
        assert told["by"] == "student" and "one turn" in told["warning"]


def test_what_has_no_schema_is_no_business_of_the_teachers(serve, teacher):
    with serve(UNSURE) as address:
        assert "by" not in json.loads(post(address, "hello", response_format=None)) and teacher == []


def test_without_a_teacher_nothing_is_said(student):
    with served(student, constrained=True) as address:
        assert "by" not in json.loads(post(address, "on?")) and health(address) == {"status": "ok"}
