"""What a server does with `format` and `think` is found out once, and heeded."""

from __future__ import annotations

import json

import pytest
from asking import ask, settings_for
from fake_ollama import ASK, VERDICT, fake_ollama, fake_settings, is_probe, said
from fault_server import fault_server, line, status, whole

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


def test_a_model_that_does_not_stop_holds_no_format(tmp_path):
    def chat(body, n):
        return [said("{", done_reason="length")] if is_probe(body) else VERDICT

    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
        facts = {name: t.info[name] for name in ("format", "think", "thought", "num_ctx", "model", "api", "reason")}
        assert facts == {
            **{"format": "ignored", "think": None, "thought": False, "num_ctx": 8192, "model": "m:1"},
            **{"api": "ollama", "reason": "named by --teacher-model"},
        }


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


# Thinking


def thinker(takes, thought=""):
    """A model whose server takes these values of `think`, and that thinks so."""

    def chat(body, n):
        if "think" in body and body["think"] not in takes:
            return (400, f'think value "{body["think"]}" is not supported for this model')
        answer = {"color": "red", "number": 1} if is_probe(body) else VERDICT
        return [said(answer, thinking=thought)]

    return chat


LEVELS, SWITCH = ("low", "medium", "high", True, False), (True, False)


@pytest.mark.parametrize(
    ("wanted", "takes", "asked"),
    [
        ("low", LEVELS, "low"),
        ("low", SWITCH, True),
        ("low", (), None),
        ("true", SWITCH, True),
        ("true", (), None),
        ("false", SWITCH, False),
        ("false", LEVELS, False),
        ("false", (), None),
        ("", SWITCH, None),
    ],
)
def test_think_is_asked_for_as_the_model_takes_it(wanted, takes, asked, tmp_path):
    with (
        fake_ollama(thinker(takes), capabilities=("completion", "thinking")) as fake,
        open_teacher(fake_settings(fake, tmp_path, teacher_think=wanted)) as t,
    ):
        assert t.ask(*ASK) == VERDICT and t.info["think"] == asked and fake.asked()[0].get("think") == asked


@pytest.mark.parametrize(
    ("wanted", "takes", "thought", "note"),
    [
        ("false", SWITCH, "hm", "m:1 thinks all the same: its thinking cannot be switched off here"),
        ("false", (), "hm", "m:1 thinks all the same: its thinking cannot be switched off here"),
        ("low", SWITCH, "hm", "m:1 takes no level of thinking: --teacher-think low lets it think, false does not"),
        ("low", (), "hm", "m:1 does not take --teacher-think low: it thinks as it is used to"),
        ("false", SWITCH, "", ""),
        ("low", LEVELS, "hm", ""),
        ("true", SWITCH, "hm", ""),
    ],
)
def test_what_is_not_had_of_thinking_is_said_also_by_a_run_that_does_not_probe_again(
    wanted, takes, thought, note, tmp_path, capsys
):
    with fake_ollama(thinker(takes, thought), capabilities=("completion", "thinking")) as fake:
        for _ in range(2):
            with open_teacher(fake_settings(fake, tmp_path, teacher_think=wanted)):
                shown = capsys.readouterr().out
            assert (f"note: {note}\n" in shown) if note else ("note:" not in shown)


def test_thinking_in_the_answer_itself_counts_as_thinking(tmp_path, capsys):
    chat = thinker(SWITCH)

    def in_content(body, n):
        answer = chat(body, n)[0]["message"]["content"]
        return f"<think>a</think>{answer}"

    with fake_ollama(in_content) as fake, open_teacher(fake_settings(fake, tmp_path, teacher_think="false")) as t:
        assert t.ask(*ASK) == VERDICT
    assert "cannot be switched off" in capsys.readouterr().out


def test_a_server_without_a_version_or_capabilities_is_asked_all_the_same(tmp_path):
    with fault_server() as server:
        server.routes["/api/version"] = status(404, b"404 page not found", "text/plain")
        server.routes["/api/show"] = whole(line({"model_info": {"x.context_length": 32768}}), kind="application/json")
        with open_teacher(settings_for(server, tmp_path)) as t:
            assert t.ask(*ask()) == VERDICT
            assert (t.info["ollama_version"], t.info["think"]) == ("unknown", None)
