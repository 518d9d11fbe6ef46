"""Everything that can go wrong between the client and a model server ends in a typed error that says what to do."""

from __future__ import annotations

import json
import sys
import time
import tracemalloc

import pytest
from asking import ADVICE, DEADLINE, ask, bounds_for, outcome, settings_for
from fault_server import MIB, READ, VERDICT, Fault, fault_server, good, said, status, whole
from server_faults import FAULTS

from schema_student.core.processes import run_script
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherError, TeacherFailure
from schema_student.teacher.retries import TRIES

pytestmark = pytest.mark.usefixtures("nothing_named")


def test_there_are_at_least_forty_faults():
    assert len(FAULTS) >= 40


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.end == "retried"])
def test_a_fault_that_can_pass_is_retried_to_a_bound(name, tmp_path):
    fault = FAULTS[name]
    with fault_server() as server, open_teacher(settings_for(server, tmp_path, **bounds_for(fault))) as teacher:
        server.fault, server.times = fault, 1
        assert outcome(teacher) == VERDICT and len(server.chats) == 2  # once more, and the answer is the good one
        server.times = 2
        failed = outcome(teacher, 1)
        assert isinstance(failed, TeacherFailure) and failed.kind == fault.kind
        assert "no answer after 2 tries" in failed.reason and ADVICE.search(failed.reason)
        assert len(server.chats) == 4
        counts = teacher.usage.summary(1)
        assert counts["faults"] == {fault.kind: 3} and counts["retries"] == 2


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.end == "failure"])
def test_a_fault_that_cannot_pass_fails_that_question_at_once(name, tmp_path):
    fault = FAULTS[name]
    with fault_server() as server, open_teacher(settings_for(server, tmp_path)) as teacher:
        server.fault, server.times = fault, 1
        failed = outcome(teacher)
        assert isinstance(failed, TeacherFailure) and failed.kind == fault.kind and ADVICE.search(failed.reason)
        assert len(server.chats) == 1
        assert outcome(teacher, 1) == VERDICT


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.end == "asked anew"])
def test_an_answer_of_no_use_is_asked_for_anew_to_a_bound(name, tmp_path):
    fault = FAULTS[name]
    with fault_server() as server, open_teacher(settings_for(server, tmp_path)) as teacher:
        server.fault, server.times = fault, TRIES - 1
        assert outcome(teacher) == VERDICT and len(server.chats) == TRIES
        server.times = TRIES
        failed = outcome(teacher, 1)
        assert isinstance(failed, TeacherFailure) and failed.kind == fault.kind and ADVICE.search(failed.reason)
        assert len(server.chats) == 2 * TRIES


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.end == "stop"])
def test_a_fault_that_needs_a_person_stops_the_run(name, tmp_path, monkeypatch, capsys):
    fault = FAULTS[name]
    monkeypatch.setattr("schema_student.teacher.confirmation.RECHECK_SECONDS", 0.0)
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)

    def main():
        with open_teacher(settings) as teacher:
            server.fault = fault
            teacher.ask(*ask())

    with fault_server() as server:
        settings = settings_for(server, tmp_path)
        with pytest.raises(SystemExit) as left:
            run_script(main)
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.startswith("error: ") and "Traceback" not in said
    assert ADVICE.search(said) and len(server.chats) == 1


@pytest.mark.parametrize(
    "send",
    [
        whole(b"<html>", kind="text/html"),
        whole(b"{}", kind="application/json"),
        whole(b"[]", kind="application/json"),
        whole(b'{"models": [7], "version": 1}', kind="application/json"),
        status(302, b"", Location="http://example.org/"),
        status(401),
        status(404),
        status(500),
        lambda connection: connection.reset(),
    ],
    ids=["web page", "no fields", "array", "ill-typed", "redirect", "401", "404", "500", "reset"],
)
@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/api/show"])
def test_a_server_that_fails_when_it_is_opened_is_named(path, send, tmp_path):
    with fault_server() as server:
        server.routes[path] = send
        try:
            with open_teacher(settings_for(server, tmp_path)) as teacher:
                # A model may say nothing of itself, and a server that speaks Ollama's API need not have a version.
                wanted = {"/api/show": ("context_length", None), "/api/version": ("ollama_version", "unknown")}
                name, value = wanted[path]
                assert teacher.info[name] == value
        except TeacherError as error:
            assert server.host in str(error) and ADVICE.search(str(error))  # noqa: PT017 - either outcome is checked


def test_a_fault_that_can_pass_is_waited_for_at_the_opening_too(tmp_path):
    with fault_server() as server:
        fails = iter([True, False])

        def once(connection):
            if next(fails):
                return status(503)(connection)
            return connection.whole(b'{"version": "1.2"}')

        server.routes["/api/version"] = once
        with open_teacher(settings_for(server, tmp_path)) as teacher:
            assert teacher.info["ollama_version"] == "1.2"


def test_https_to_a_server_that_speaks_http_says_so(tmp_path):
    with fault_server() as server:
        settings = settings_for(server, tmp_path, teacher_host=[server.host.replace("http:", "https:")])
        with pytest.raises(TeacherError, match=r"cannot be trusted|does not answer"), open_teacher(settings):
            pass


# Bounds


@pytest.mark.parametrize("name", ["a byte now and then", "a head byte by byte", "blank lines for ever"])
def test_a_deadline_holds_while_bytes_still_come(name, tmp_path):
    settings = {"teacher_timeout": 5.0, "teacher_deadline": DEADLINE, "teacher_retries": 0}
    with fault_server() as server, open_teacher(settings_for(server, tmp_path, **settings)) as teacher:
        server.fault = FAULTS[name]
        started = time.monotonic()
        assert outcome(teacher).kind == "deadline"
        assert DEADLINE <= time.monotonic() - started < 20  # the server sends for minutes


def test_an_endless_answer_takes_little_memory(tmp_path):
    with fault_server() as server:
        settings = settings_for(server, tmp_path, teacher_num_ctx=8192)
        with open_teacher(settings) as teacher:
            server.fault = FAULTS["one line of 200 MiB"]
            tracemalloc.start()
            failed = outcome(teacher)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert failed.kind == "size" and peak < 100 * MIB


def test_retry_after_is_heeded(tmp_path):
    with fault_server() as server, open_teacher(settings_for(server, tmp_path)) as teacher:
        server.fault, server.times = Fault("429", "busy", "retried", status(429, Retry_After="1")), 1
        started = time.monotonic()
        assert outcome(teacher) == VERDICT and time.monotonic() - started >= 1


@pytest.mark.parametrize("text", ["a\x85b", "a\u2028b", "\x1c", "😀", "\x00"])
def test_every_character_of_an_answer_arrives(text, tmp_path):
    """The official client alone breaks lines at U+0085 and U+2028, which JSON strings may hold as they are."""
    answer = {"is_good": True, "reason": text}
    body = json.dumps(said(json.dumps(answer, ensure_ascii=False)), ensure_ascii=False)
    with fault_server() as server, open_teacher(settings_for(server, tmp_path)) as teacher:
        server.fault = Fault("text", "", "", whole(body.encode() + b"\n"))
        assert outcome(teacher) == answer


# Keys and redirects


def test_a_key_goes_to_the_host_that_it_was_set_for_and_to_no_other(tmp_path, monkeypatch):
    with fault_server() as one, fault_server() as two, fault_server() as elsewhere:
        monkeypatch.setenv("OLLAMA_API_KEY", "secret1,secret2")
        monkeypatch.setenv("OLLAMA_HOST", f"{one.host},{two.host}")
        settings = settings_for(one, tmp_path, teacher_host=[elsewhere.host, two.host], teacher_concurrency=1)
        with open_teacher(settings) as teacher:
            teacher.ask_many([ask(i) for i in range(6)])
        keys = [{headers.get("authorization") for headers in server.seen_headers} for server in (elsewhere, two, one)]
        assert keys == [{None}, {"Bearer secret2"}, set()]


def test_a_redirect_is_not_followed_with_prompt_or_key(tmp_path, monkeypatch):
    with fault_server() as server, fault_server() as other:
        monkeypatch.setenv("OLLAMA_API_KEY", "secret")
        with open_teacher(settings_for(server, tmp_path)) as teacher:
            server.routes["/api/chat"] = status(307, b"", Location=f"{other.host}/api/chat")
            with pytest.raises(TeacherError, match=f"redirects to {other.host}/api/chat: nothing was sent there"):
                teacher.ask(*ask())
        assert {headers["authorization"] for headers in server.seen_headers} == {"Bearer secret"}
        assert other.seen_headers == []


def test_a_key_that_a_server_repeats_is_not_shown(tmp_path, monkeypatch):
    with fault_server() as server:
        monkeypatch.setenv("OLLAMA_API_KEY", "secret")
        with open_teacher(settings_for(server, tmp_path)) as teacher:
            server.routes["/api/chat"] = status(401, b'{"error": "bad key secret\\u001b[31m"}')
            with pytest.raises(TeacherError, match=r"bad key \*\*\* \[31m") as caught:
                teacher.ask(*ask())
    assert "secret" not in str(caught.value) and "OLLAMA_API_KEY" in str(caught.value)


# The model itself


def test_answers_since_the_last_look_at_a_changed_model_are_not_kept(tmp_path, monkeypatch):
    with fault_server() as server:
        settings = settings_for(server, tmp_path)

        def run():
            with open_teacher(settings) as teacher:
                assert outcome(teacher) == VERDICT
                server.digest = "digest 2"

        with pytest.raises(TeacherError, match="was changed while it was asked"):
            run()
        server.digest = "digest 1"
        with open_teacher(settings) as teacher:
            assert outcome(teacher) == VERDICT and teacher.usage.asked == 1


def test_a_context_larger_than_the_model_has_is_refused(tmp_path):
    with fault_server() as server:
        settings = settings_for(server, tmp_path, teacher_num_ctx=200_000)
        with pytest.raises(TeacherError, match="give --teacher-num-ctx 131072 or less"), open_teacher(settings):
            pass


@pytest.mark.parametrize("chars_per_token", [2, 3, 4.2, 5])
def test_a_prompt_that_was_read_whole_is_no_fault(chars_per_token, tmp_path):
    def counted(connection):
        chars = sum(len(message["content"]) for message in connection.body["messages"])
        body = good(connection, VERDICT).replace(b": %d" % READ, b": %d" % (chars / chars_per_token))
        connection.whole(body)

    with fault_server() as server, open_teacher(settings_for(server, tmp_path, teacher_num_ctx=4096)) as teacher:
        server.fault = Fault("counted", "", "", counted)
        assert outcome(teacher) == VERDICT
