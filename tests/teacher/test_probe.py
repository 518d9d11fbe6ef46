"""What a server does with `format` and `think` is found out once, and heeded."""

from __future__ import annotations

import json

import pytest
from fake_ollama import ASK, VERDICT, fake_ollama, fake_settings, is_probe, said

from schema_student.teacher.client import open_teacher

pytestmark = pytest.mark.usefixtures("nothing_named")


def test_a_format_that_is_ignored_is_written_into_the_question(tmp_path):
    def chat(body, n):
        if is_probe(body):
            return "Blue, and 7."
        return VERDICT if "is_good" in body["messages"][0]["content"].split("JSON Schema")[-1] else "no"

    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
        assert t.info["format"] == "ignored"
        assert t.ask(*ASK) == VERDICT and "format" not in fake.asked()[0]


def test_an_answer_in_thinking_is_found_there(tmp_path):
    def chat(body, n):
        return [said("", thinking=json.dumps({"color": "red", "number": 1} if is_probe(body) else VERDICT))]

    with (
        fake_ollama(chat, capabilities=("completion", "thinking")) as fake,
        open_teacher(fake_settings(fake, tmp_path)) as t,
    ):
        assert t.info["format"] == "in thinking" and t.info["think"] == "low"
        assert t.ask(*ASK) == VERDICT


def test_a_model_that_takes_no_think_level_is_asked_without(tmp_path):
    def chat(body, n):
        if body.get("think"):
            return (400, 'think value "low" is not supported for this model')
        return {"color": "red", "number": 1} if is_probe(body) else VERDICT

    with (
        fake_ollama(chat, capabilities=("completion", "thinking")) as fake,
        open_teacher(fake_settings(fake, tmp_path)) as t,
    ):
        assert t.info["think"] is None and t.ask(*ASK) == VERDICT


def test_a_server_that_cannot_make_a_grammar_of_a_schema_is_asked_without(tmp_path):
    def chat(body, n):
        if is_probe(body):
            return {"color": "red", "number": 1}
        return (500, "failed to parse grammar") if body.get("format") else VERDICT

    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
        assert t.ask(*ASK) == VERDICT and len(fake.asked()) == 2
