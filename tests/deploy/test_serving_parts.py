"""Parts of serving by themselves: who may ask, what is asked of a server, and when a teacher answers instead."""

import asyncio
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from schema_student.core.errors import UserError
from schema_student.core.settings import default_settings
from schema_student.deploy.serving import client, guarding
from schema_student.deploy.serving.client import ServedWriter, find_obstacle
from schema_student.deploy.serving.deferring import Deferring
from schema_student.deploy.serving.faults import ApiFault
from schema_student.deploy.serving.guarding import Bounds, Guard, read_body
from schema_student.deploy.serving.replies import Reply
from schema_student.deploy.serving.requests import Asked, Schema
from schema_student.deploy.serving.running import Running
from schema_student.deploy.serving.writer import Done
from schema_student.evaluation.confidence import Calibration
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.student.ask import Answer, Asking
from schema_student.student.generated import Generation

pytest.importorskip("starlette")
from starlette.requests import Request

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
OWN = {"host": "127.0.0.1:80"}


def scope(path="/v1/models", kind="http", **headers):
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": kind, "path": path, "headers": named, "method": "GET", "scheme": "http", "server": ("h", 80)} | {
        "query_string": b"",
        "root_path": "",
    }


def send_to(bounds, app, *scopes):
    """What a guard answers to requests one after another: (status, body, headers); None where the app answers."""

    async def run():
        guard, found = Guard(app, bounds), []
        for each in scopes:
            told = []

            async def send(message, told=told):
                told.append(message)

            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}

            await guard(each, receive, send)
            body = json.loads(told[1]["body"]) if len(told) > 1 else None
            headers = {name.decode(): value.decode() for name, value in told[0]["headers"]} if told else {}
            found.append((told[0]["status"], body, headers) if told else None)
        return found

    return asyncio.run(run())


async def silent(scope, receive, send):
    """An app that says nothing, so that whatever is said is the guard's."""


def error(message, kind="authentication_error", code="forbidden"):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


WRONG_KEY = error("the key is missing or wrong: Authorization: Bearer KEY", code="invalid_api_key")


@pytest.mark.parametrize(
    ("bounds", "headers", "status", "body"),
    [
        ({}, OWN, None, None),
        ({}, {"host": "LOCALHOST:80"}, None, None),
        ({}, {"host": "[::1]:80"}, None, None),
        ({}, {}, 403, error("the Host must be this machine's own")),
        ({}, {"host": "127.0.0.1:81"}, 403, error("the Host must be this machine's own")),
        ({}, {"host": "evil.example:80"}, 403, error("the Host must be this machine's own")),
        ({}, {**OWN, "origin": "http://127.0.0.1:80"}, 403, error("no web page may ask")),
        ({"host": "0.0.0.0"}, {"host": "evil.example:80"}, None, None),
        ({"host": "0.0.0.0"}, {**OWN, "origin": "null"}, 403, error("no web page may ask")),
        ({"host": "localhost"}, {}, 403, error("the Host must be this machine's own")),
        ({"host": "::1"}, {}, 403, error("the Host must be this machine's own")),
        ({"key": "k"}, OWN, 401, WRONG_KEY),
        ({"key": "k"}, {**OWN, "authorization": "Bearer x"}, 401, WRONG_KEY),
        ({"key": "k"}, {**OWN, "authorization": "k"}, 401, WRONG_KEY),
        ({"key": "k"}, {**OWN, "authorization": "Bearer k"}, None, None),
    ],
)
def test_who_may_ask_is_told_by_origin_host_and_key(bounds, headers, status, body):
    (found,) = send_to(Bounds(**{"host": "127.0.0.1", "port": 80, **bounds}), silent, scope(**headers))
    assert (found and found[:2]) == (status and (status, body))
    if status == 401:
        assert found[2]["www-authenticate"] == "Bearer"


def test_health_is_told_to_all_and_what_is_no_request_goes_on():
    bounds = Bounds("127.0.0.1", 80, "k")
    assert send_to(bounds, silent, scope("/health", **OWN), scope(kind="lifespan")) == [None, None]
    (found,) = send_to(bounds, silent, scope("/api/tags", **OWN))
    assert found[1] == {"error": "the key is missing or wrong: Authorization: Bearer KEY"}


def test_more_requests_than_its_bound_are_asked_to_come_again():
    async def ask_within(scope, receive, send):
        if scope["path"] == "/deep":
            await guard({**scope, "path": "/"}, receive, send)

    told = []

    async def send(message):
        told.append(message)

    guard = Guard(ask_within, Bounds("127.0.0.1", 80, requests=1))
    asyncio.run(guard(scope("/deep", **OWN), None, send))
    assert told[0]["status"] == 429 and (b"retry-after", b"1") in told[0]["headers"]
    said = error("1 requests are being answered: try again", "rate_limit_error", "busy")
    assert json.loads(told[1]["body"]) == said
    told.clear()
    asyncio.run(guard(scope("/", **OWN), None, send))  # it is free again
    assert told == []


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"content_length": str(2**62)}, False),  # counted as twice the longest body
        ({"content_length": "7"}, False),
        ({"transfer_encoding": "chunked"}, False),
        ({}, False),
    ],
)
def test_bodies_are_counted_by_their_heads_while_they_are_answered(headers, refused, monkeypatch):
    size = {"content_length": min(int(headers.get("content_length", 0)), 8 * 2**20), "transfer_encoding": 4 * 2**20}
    size = next((size[name] for name in headers), 0)
    for bound, status in ((size, None), (size - 1, 429)):
        monkeypatch.setattr(guarding, "BODIES_BYTES", bound)
        (found,) = send_to(Bounds("127.0.0.1", 80), silent, scope(**OWN, **headers))
        assert (found and found[0]) == status and not refused


def test_an_answer_that_takes_too_long_is_a_fault_and_one_that_has_begun_is_cut_off():
    async def slow(scope, receive, send):
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(9)

    bounds = Bounds("127.0.0.1", 80, seconds=0.001)
    (found,) = send_to(bounds, slow, scope(**OWN))
    assert found[:2] == (504, error("there was no answer in 0.001 s", "server_error", "timeout"))
    with pytest.raises(ConnectionAbortedError, match="too slow, in mid-answer"):
        send_to(bounds, slow, scope("/begun", **OWN))


@pytest.mark.parametrize(
    ("parts", "length", "status"),
    [
        ([b"ab", b"c"], "", None),
        ([b"x" * 2**22], str(2**22), None),
        ([b""], str(2**22 + 1), 413),
        ([b"x" * 2**22, b"y"], "", 413),
    ],
)
def test_a_body_is_read_up_to_its_bound(parts, length, status):
    left = [*parts]

    async def receive():
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    read = read_body(Request(scope(**({"content_length": length} if length else {})), receive))
    if status is None:
        assert asyncio.run(read) == b"".join(parts)
    else:
        with pytest.raises(ApiFault) as caught:
            asyncio.run(read)
        said = f"the body is longer than {4 * 2**20} bytes"
        assert (caught.value.status, caught.value.code, caught.value.message) == (413, "too_large", said)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(guarding, "BODY_SECONDS", 0.001)

    async def receive():
        await asyncio.sleep(9)

    with pytest.raises(ApiFault) as caught:
        asyncio.run(read_body(Request(scope(), receive)))
    assert (caught.value.status, caught.value.code) == (408, "timeout")
    assert caught.value.message == "the body did not come in 0.001 s"


# ---- what is asked of a server


RUNNING = Running("127.0.0.1", 8000, "", "it", 1)
COMPILED = compile_schema(SCHEMA)


@pytest.fixture
def server(monkeypatch):
    """A server whose replies a test gives: (status, what it says), or a failure; what it was asked is kept."""
    found = SimpleNamespace(replies=[], asked=[], pauses=[])

    def request(running, method, path, body, seconds):
        assert (running, method, path, seconds) == (RUNNING, "POST", "/v1/chat/completions", 600.0)
        found.asked.append(body)
        reply = found.replies.pop(0) if len(found.replies) > 1 else found.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    ticks = iter(range(0, 9999, 3))
    monkeypatch.setattr(client, "request", request)
    monkeypatch.setattr(client.time, "sleep", found.pauses.append)
    monkeypatch.setattr(client.time, "monotonic", lambda: float(next(ticks)))
    return found


def said(text, reason="stop", changes=0):
    choice = {"finish_reason": reason, "message": {"content": text}}
    return {"choices": [choice], "usage": {"completion_tokens": 5}, "mask_changes": changes}


def writer(settings=None, constrained=False):
    settings = settings or default_settings(seed=3, sample_temperature=0.7)
    return ServedWriter(RUNNING, settings, Asking(constrained=constrained))


def test_a_served_student_is_asked_as_it_would_be_asked_if_it_were_loaded(server):
    server.replies = [(200, said("{}", "length", 2))]
    prepared = [(0, COMPILED, "two")]
    assert writer(constrained=True).write(prepared, 0) == [[Generation("{}", 5, False, 3.0, (), 2)]]
    wanted = {"name": "answer", "schema": SCHEMA, "strict": True}
    body = {
        **{"model": "it", "messages": [{"role": "user", "content": "two"}], "temperature": 0, "seed": 3},
        "response_format": {"type": "json_schema", "json_schema": wanted},
        "metadata": {"sample": 0},
    }
    assert server.asked == [body]
    server.asked.clear()
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    found = writer().write([(0, COMPILED, turns), (1, COMPILED, "c")], 2)
    assert [[each.finished for each in some] for some in found] == [[False] * 2] * 2
    told = sorted((len(each["messages"]), each["temperature"], each["metadata"]["sample"]) for each in server.asked)
    assert told == [(1, 0.7, 0), (1, 0.7, 1), (2, 0.7, 0), (2, 0.7, 1)]
    assert not any(each["response_format"]["json_schema"]["strict"] for each in server.asked)
    assert writer().sureness(found[0][0]) is None


@pytest.mark.parametrize("status", [400, 413])
def test_a_request_that_is_refused_for_itself_has_the_reason_in_its_place(status, server):
    server.replies = [(status, {"error": {"message": "messages: too long"}})]
    assert writer().write([(0, COMPILED, "two")], 2) == ["too long"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((500, {"error": {"message": "broken"}}), "the server at http://127.0.0.1:8000 answers 500: broken"),
        ((200, {"choices": []}), r"the server at http://127.0.0.1:8000 failed \(list index out of range\): ask again"),
        (OSError("gone"), r"the server at http://127.0.0.1:8000 failed \(gone\): ask again"),
        (
            (429, {"error": {"message": "busy"}}),
            "the server at http://127.0.0.1:8000 is busy: ask later, or with --load",
        ),
    ],
)
def test_a_server_that_fails_is_an_error_and_a_busy_one_is_asked_for_a_minute(reply, words, server):
    server.replies = [reply]
    with pytest.raises(UserError, match=f"^{words}$"):
        writer().write([(0, COMPILED, "two")], 0)
    busy = isinstance(reply, tuple) and reply[0] == 429
    assert (len(server.asked), server.pauses) == ((60, [1.0] * 60) if busy else (1, []))


def test_what_a_served_student_cannot_do_is_found_before_it_is_asked():
    drawn = default_settings(sample_temperature=2.5)
    assert find_obstacle(Asking(explain=True), drawn) == "it does not say how sure it is (--explain, --defer-to)"
    assert find_obstacle(Asking(samples=2), drawn) == "it draws at 2 at most (--sample-temperature)"
    assert (
        find_obstacle(Asking(), drawn) == "" == find_obstacle(Asking(samples=2), default_settings(sample_temperature=2))
    )


# ---- a teacher behind the student


ASKED = Asked([1, 2, 3], Schema(COMPILED, False), None, 9, 0.0, 1, (), False, "two", "2026-01-31", True)
VALID = Reply('{"n": 1}', None, "stop", judge('{"n": 1}', COMPILED), {"total_tokens": 4})
DONE = Done('{"n": 1}', 1, True, 0.5, 0, math.log(0.75))


def settle(asked=ASKED, done=DONE, reply=VALID, below=0.9, answer=None):
    """What becomes of a reply, the counts, and what the teacher was asked."""
    questions = []

    def ask(some):
        questions.extend(some)
        if isinstance(answer, Exception):
            raise answer
        return [answer] * len(some)

    known = {"calibration": Calibration(0.0, 1.0), "below": below, "teacher": "a teacher", "ask": ask}
    deferral = SimpleNamespace(**known, warn=lambda given: f"it failed: {given.problem}")

    async def run(deferring):
        return await deferring.settle(asked, done, reply)

    with Deferring(deferral) as deferring:
        found = asyncio.run(run(deferring))
    return found, (*deferring.counts.items(),), questions


def counts(answered=1, deferred=0, failed=0):
    return ("answered", answered), ("deferred", deferred), ("teacher_failed", failed)


@pytest.mark.parametrize(
    ("given", "sure"),
    [({}, 0.75), ({"done": replace(DONE, log_p=None), "below": 0.0}, 0.0),
     ({"reply": replace(VALID, reason="length"), "below": 0.0}, 0.0)],
)  # fmt: skip
def test_a_student_that_is_sure_enough_answers_itself(given, sure):
    found, counted, questions = settle(**{"below": 0.75, **given})
    assert found == replace(given.get("reply", VALID), told={"by": "student", "confidence": sure})
    assert counted == counts() and questions == []


def test_what_has_no_schema_is_not_counted():
    assert settle(replace(ASKED, schema=None)) == (VALID, counts(0), [])


def test_a_conversation_is_not_deferred():
    found, counted, questions = settle(replace(ASKED, is_alone=False))
    assert found.told["warning"] == "not deferred: a teacher is asked about one turn alone"
    assert (found.text, counted, questions) == (VALID.text, counts(), [])


def test_a_teacher_answers_what_the_student_is_not_sure_of():
    answer = Answer({"n": 2}, True, (), '{"n": 2}', 7, 0.5)
    found, counted, (question,) = settle(done=replace(DONE, finished=False), answer=answer)
    assert (found.text, found.reason, found.valid, found.usage) == ('{"n": 2}', "stop", True, VALID.usage)
    assert found.told == {"by": "a teacher", "confidence": 0.75} and counted == counts(1, 1)
    assert (question.schema, question.request, question.day) == (COMPILED, "two", "2026-01-31")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(Answer(None, False, (), "", 0, 0.0, "silence"), "silence"), (ValueError("odd"), "ValueError: odd")],
)
def test_a_teacher_that_fails_leaves_the_student_s_answer_with_a_warning(answer, problem):
    found, counted, _ = settle(answer=answer)
    told = {"by": "student", "confidence": 0.75, "warning": f"it failed: {problem}"}
    assert (found, counted) == (replace(VALID, told=told), counts(1, 1, 1))
