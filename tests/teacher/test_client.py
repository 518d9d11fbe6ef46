"""The teacher client against servers that fail in every way that known ones do."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from schema_student.core.settings import default_settings
from schema_student.teacher.apis import open_servers
from schema_student.teacher.budget import Limits
from schema_student.teacher.cache import AnswerCache
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.client import Teacher, open_teacher
from schema_student.teacher.dispatch import Host
from schema_student.teacher.embedded.server import serve
from schema_student.teacher.faults import TeacherError, TeacherFailure
from schema_student.teacher.retries import TRIES

VERDICT = {"is_good": True, "reason": "fine"}
ASK = ("judge", {"schema": {}, "query": "?", "answer": {}})


pytestmark = pytest.mark.usefixtures("nothing_named")


class FakeOllama:
    """An Ollama whose every chat is what `chat(body, number)` says: text, a status, or a fault by name."""

    def __init__(self, chat, models=("m:1",), capabilities=("completion",)):
        self.chat, self.models, self.capabilities = chat, models, list(capabilities)
        self.bodies: list[dict] = []
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    def asked(self, word="Role:"):
        return [body for body in self.bodies if word in body["messages"][0]["content"]]


@contextmanager
def fake_ollama(chat, **facts):
    fake = FakeOllama(chat, **facts)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            models = [{"model": name, "digest": f"digest of {name}"} for name in fake.models]
            self.reply(200, {"version": "0.12.3"} if self.path == "/api/version" else {"models": models})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/show":
                return self.reply(200, {"model_info": {}, "capabilities": fake.capabilities})
            with fake.lock:
                fake.bodies.append(body)
                number = len(fake.bodies)
                fake.running += 1
                fake.most_running = max(fake.running, fake.most_running)
            try:
                answer = fake.chat(body, number)
            finally:
                with fake.lock:
                    fake.running -= 1
            self.answer(body, answer)

        def answer(self, body, answer):
            if isinstance(answer, int):
                return self.reply(answer, {"error": f"status {answer}"})
            if isinstance(answer, tuple):
                return self.reply(answer[0], {"error": answer[1]})
            parts = answer if isinstance(answer, list) else [said(answer)]
            if not body["stream"]:
                return self.reply(200, parts[-1])
            text = b"".join(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n" for part in parts)
            self.send_response(200)
            self.send_header("Content-Length", str(len(text) + (50 if parts[-1] == b"" else 0)))
            self.end_headers()
            self.wfile.write(text)
            if parts[-1] == b"":  # torn: the connection ends before the promised length
                self.close_connection = True

        def reply(self, status, value):
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.host = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said(content, thinking=None, **facts):
    text = content if isinstance(content, str) else json.dumps(content)
    message = {"role": "assistant", "content": text} | ({"thinking": thinking} if thinking else {})
    return {"model": "m:1", "message": message, "done": True, "done_reason": "stop", "eval_count": 3, **facts}


def is_probe(body):
    return "Name a color" in body["messages"][0]["content"]


def after_probe(chat):
    """A chat that passes the probe at open and then does as it is told; numbers count from 1 after it."""
    count = iter(range(1, 10_000))
    return lambda body, number: {"color": "red", "number": 1} if is_probe(body) else chat(body, next(count))


def settings_for(fake, tmp_path, **changes):
    facts = {"output_dir": str(tmp_path / "out"), "teacher_model": "m:1", "teacher_host": [fake.host]}
    return default_settings(**{**facts, "teacher_timeout": 5.0, "teacher_retries": 2, **changes})


# Asking


def test_an_answer_is_validated_and_given_back(tmp_path):
    with fake_ollama(after_probe(lambda body, n: VERDICT)) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        assert t.ask(*ASK) == VERDICT
        body = fake.asked()[0]
        assert body["format"]["required"] == ["is_good", "reason"] and body["options"]["num_ctx"] == 8192
        assert body["options"]["temperature"] == 0 and isinstance(body["options"]["seed"], int)
        assert t.info["ollama_version"] == "0.12.3" and t.info["model_digest"] == "digest of m:1"
        assert t.info["format"] == "honored" and t.name == t.display_name == "m:1"


@pytest.mark.parametrize(
    "fault",
    [
        500,
        502,
        503,
        429,
        [said("", done=False), b""],
        [b'{"model": "m:1", "mess'],
        [{"error": "llama runner died"}],
        [],
    ],
    ids=["500", "502", "503", "429", "torn", "garbled", "error line", "nothing"],
)
def test_what_can_pass_is_tried_again(fault, tmp_path):
    chat = after_probe(lambda body, n: fault if n <= 2 else VERDICT)
    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        assert t.ask(*ASK) == VERDICT
        assert len(fake.asked()) == 3


def test_a_timeout_is_tried_again(tmp_path):
    wait = threading.Event()

    def slow_once(body, n):
        if n == 1:
            wait.wait(3)
        return VERDICT

    chat = after_probe(slow_once)
    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path, teacher_timeout=0.3)) as t:
        assert t.ask(*ASK) == VERDICT
        wait.set()
        assert len(fake.asked()) == 2


def test_what_cannot_pass_is_not_tried_again(tmp_path):
    with (
        fake_ollama(after_probe(lambda body, n: (400, "bad option"))) as fake,
        open_teacher(settings_for(fake, tmp_path)) as t,
    ):
        failure = t.ask_many([ASK])[0]
        assert isinstance(failure, TeacherFailure) and failure.kind == "refusal"
        assert failure.reason.startswith(f"the teacher refuses the question: {fake.host} answers 400 (bad option)")
        assert len(fake.asked()) == 1


def test_a_model_that_goes_away_says_pull(tmp_path):
    with (
        fake_ollama(after_probe(lambda body, n: 404)) as fake,
        open_teacher(settings_for(fake, tmp_path)) as t,
        pytest.raises(TeacherError, match="ollama pull m:1"),
    ):
        t.ask_many([ASK])
    assert len(fake.asked()) == 1


def test_tries_that_are_used_up_are_a_failure_of_that_question_alone(tmp_path):
    chat = after_probe(lambda body, n: 500 if "bad" in body["messages"][1]["content"] else VERDICT)
    asks = [("judge", {"schema": {}, "query": query, "answer": {}}) for query in ("good", "bad", "good too")]
    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        first, second, third = t.ask_many(asks)
    assert (first, third) == (VERDICT, VERDICT)
    assert isinstance(second, TeacherFailure) and "3 tries" in second.reason and "status 500" in second.reason


def test_a_server_that_dies_stops_the_run_and_keeps_what_came(tmp_path):
    with fake_ollama(after_probe(lambda body, n: VERDICT)) as fake:
        settings = settings_for(fake, tmp_path)
        with open_teacher(settings) as t:
            t.ask(*ASK)
            t.chat.hosts = [Host(open_servers("ollama", ["127.0.0.1:9"], Limits(1, 1, 9999))[0])]
            with pytest.raises(TeacherError, match="does not answer"):
                t.ask("judge", {"schema": {}, "query": "another", "answer": {}})
        with open_teacher(settings) as t:
            assert t.ask(*ASK) == VERDICT and t.asked == 0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("", "empty"),
        ("I would rather not.", "not JSON"),
        ('{"is_good": "yes", "reason": "x"}', "/is_good"),
        ('{"is_good": true', "not JSON"),
        (said('{"is_good": true, "reason": ""}', done_reason="length"), "cut off"),
    ],
)
def test_an_unusable_answer_is_asked_for_again_and_then_given_up(bad, reason, tmp_path):
    answer = [bad] if isinstance(bad, dict) else bad
    with (
        fake_ollama(after_probe(lambda body, n: answer)) as fake,
        open_teacher(settings_for(fake, tmp_path)) as t,
    ):
        failure = t.ask_many([ASK])[0]
        assert isinstance(failure, TeacherFailure) and reason in failure.reason
        assert len(fake.asked()) == TRIES
        assert len({body["options"]["seed"] for body in fake.asked()}) == TRIES
        with pytest.raises(TeacherError, match="no usable answer as judge"):
            t.ask(*ASK)


def test_a_question_that_overflows_the_context_is_refused_not_truncated(tmp_path):
    chat = after_probe(lambda body, n: [said(VERDICT, prompt_eval_count=8190)])
    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        assert "raise --teacher-num-ctx" in t.ask_many([ASK])[0].reason
        assert len(fake.asked()) == 1


def shown_violations(body):
    """What a repair shows of the last answer: "" for a question that is put for the first time."""
    messages = body["messages"]
    return messages[-1]["content"] if len(messages) == 4 and messages[2]["role"] == "assistant" else ""


def test_an_invalid_answer_is_shown_its_violations_and_repaired(tmp_path):
    chat = after_probe(lambda body, n: VERDICT if shown_violations(body) else '{"is_good": "yes"}')
    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        assert t.ask(*ASK) == VERDICT
        first, second = fake.asked()
        assert "/is_good" in shown_violations(second) and '"reason" is a required' in shown_violations(second)
        assert second["messages"][2]["content"] == '{"is_good": "yes"}' and second["messages"][:2] == first["messages"]
        counts = t.usage.summary(1)
        assert (counts["repairs"], counts["rejected_answers"]) == (1, {"answer": 1})
        rejected = t.rejected_answers()
    assert [(row["try"], row["answer"], row["error_type"]) for row in rejected] == [(1, '{"is_good": "yes"}', "answer")]
    assert "the answer is not valid: /" in rejected[0]["reason"]


@pytest.mark.parametrize(("repairs", "requests"), [(0, 3), (1, 3), (2, 3), (4, 5)])
def test_repairs_are_bounded(repairs, requests, tmp_path):
    with (
        fake_ollama(after_probe(lambda body, n: '{"is_good": 1}')) as fake,
        open_teacher(settings_for(fake, tmp_path, teacher_repairs=repairs)) as t,
    ):
        assert isinstance(t.ask_many([ASK])[0], TeacherFailure)
        assert len(fake.asked()) == requests
        assert sum(bool(shown_violations(body)) for body in fake.asked()) == repairs
        assert len(t.rejected_answers()) == requests


def test_rejected_answers_are_known_to_a_run_that_reads_the_answer_from_disk(tmp_path):
    chat = after_probe(lambda body, n: "prose" if n == 1 else VERDICT)
    with fake_ollama(chat) as fake:
        found = []
        for _ in range(2):
            with open_teacher(settings_for(fake, tmp_path)) as t:
                assert t.ask(*ASK) == VERDICT
                found.append(t.rejected_answers())
        assert found[0] == found[1] and found[0][0]["answer"] == "prose" and len(fake.asked()) == 2


@pytest.mark.parametrize("around", ["```json\n%s\n```", "Here you are:\n%s\nI hope it helps.", "\n %s \n"])
def test_json_is_taken_out_of_fences_and_prose(around, tmp_path):
    chat = after_probe(lambda body, n: around % json.dumps(VERDICT))
    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        assert t.ask(*ASK) == VERDICT


# Order, concurrency, cache


def test_answers_come_in_order_with_bounded_concurrency(tmp_path):
    def chat(body, n):
        time.perf_counter()
        number = json.loads(body["messages"][1]["content"].split("Input:\n")[1])["query"]
        threading.Event().wait(0.002 * (int(number) % 7))
        return {"is_good": True, "reason": number}

    asks = [("judge", {"schema": {}, "query": str(i), "answer": {}}) for i in range(40)]
    with (
        fake_ollama(after_probe(chat)) as fake,
        open_teacher(settings_for(fake, tmp_path, teacher_concurrency=3)) as t,
    ):
        answers = t.ask_many(asks)
    assert [answer["reason"] for answer in answers] == [str(i) for i in range(40)]
    assert 1 < fake.most_running <= 3


def test_nothing_is_asked_twice_not_even_the_probe(tmp_path):
    with fake_ollama(after_probe(lambda body, n: VERDICT)) as fake:
        for _ in range(2):
            with open_teacher(settings_for(fake, tmp_path)) as t:
                assert t.ask_many([ASK, ASK])[0] == VERDICT
        assert len(fake.bodies) <= 3  # the probe, and the same question twice at once
        with open_teacher(settings_for(fake, tmp_path, teacher_temperature=0.1)) as t:
            t.ask(*ASK)
        assert len(fake.asked()) > 1


def test_failures_are_not_cached(tmp_path):
    chat = after_probe(lambda body, n: "" if n <= 3 else VERDICT)
    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        assert isinstance(t.ask_many([ASK])[0], TeacherFailure)
        assert t.ask(*ASK) == VERDICT


def test_several_hosts_share_the_questions(tmp_path):
    chat = after_probe(lambda body, n: VERDICT)
    other = after_probe(lambda body, n: VERDICT)
    asks = [("judge", {"schema": {}, "query": str(i), "answer": {}}) for i in range(20)]
    with fake_ollama(chat) as one, fake_ollama(other) as two:
        settings = settings_for(one, tmp_path, teacher_host=[one.host, two.host])
        with open_teacher(settings) as t:
            t.ask_many(asks)
        assert len(one.asked()) > 3 and len(two.asked()) > 3 and len(one.asked()) + len(two.asked()) == 20


def test_a_damaged_cache_is_named(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_text("this is no database, but it is long enough to be taken for one " * 40)
    with pytest.raises(TeacherError, match=r"cache\.sqlite.*move it away"):
        AnswerCache(path)


# The probe


def test_a_format_that_is_ignored_is_written_into_the_question(tmp_path):
    def chat(body, n):
        if is_probe(body):
            return "Blue, and 7."
        return VERDICT if "is_good" in body["messages"][0]["content"].split("JSON Schema")[-1] else "no"

    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        assert t.info["format"] == "ignored"
        assert t.ask(*ASK) == VERDICT and "format" not in fake.asked()[0]


def test_an_answer_in_thinking_is_found_there(tmp_path):
    def chat(body, n):
        return [said("", thinking=json.dumps({"color": "red", "number": 1} if is_probe(body) else VERDICT))]

    with (
        fake_ollama(chat, capabilities=("completion", "thinking")) as fake,
        open_teacher(settings_for(fake, tmp_path)) as t,
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
        open_teacher(settings_for(fake, tmp_path)) as t,
    ):
        assert t.info["think"] is None and t.ask(*ASK) == VERDICT


def test_a_server_that_cannot_make_a_grammar_of_a_schema_is_asked_without(tmp_path):
    def chat(body, n):
        if is_probe(body):
            return {"color": "red", "number": 1}
        return (500, "failed to parse grammar") if body.get("format") else VERDICT

    with fake_ollama(chat) as fake, open_teacher(settings_for(fake, tmp_path)) as t:
        assert t.ask(*ASK) == VERDICT and len(fake.asked()) == 2


# Which teacher


def test_auto_takes_the_embedded_teacher_where_no_ollama_answers(tmp_path, capsys):
    settings = default_settings(output_dir=str(tmp_path))
    choice = resolve_teacher(settings)
    assert choice.embedded and "no Ollama answers" in choice.reason
    with open_teacher(settings) as t:
        assert t.ask("domain_spec", {"index": 0})["schema_id"]
        assert t.info["format"] == "honored" and isinstance(t, Teacher)
    assert "teacher: embedded rule-based teacher (not an LLM) (auto" in capsys.readouterr().out


def test_auto_takes_the_preferred_model_where_ollama_has_it(tmp_path, monkeypatch):
    with fake_ollama(lambda body, n: 500, models=("gpt-oss:120b", "m:1")) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.host)
        assert resolve_teacher(default_settings()).model == "gpt-oss:120b"
        choice = resolve_teacher(default_settings(preferred_teacher="other:7b"))
        assert choice.embedded and "has not got other:7b" in choice.reason


def test_a_name_without_tag_means_latest(tmp_path):
    chat = after_probe(lambda body, n: VERDICT)
    with (
        fake_ollama(chat, models=("m:latest",)) as fake,
        open_teacher(settings_for(fake, tmp_path, teacher_model="m")) as t,
    ):
        assert t.ask(*ASK) == VERDICT


def test_a_named_teacher_never_falls_back(tmp_path, monkeypatch):
    settings = default_settings(output_dir=str(tmp_path), teacher_model="gpt-oss:120b")
    assert resolve_teacher(settings).model == "gpt-oss:120b"
    with (
        pytest.raises(TeacherError, match=r"does not answer at .*ollama serve.*--teacher-model embedded"),
        open_teacher(settings),
    ):
        pass
    pulled = pytest.raises(TeacherError, match="run `ollama pull gpt-oss:120b`")
    with serve() as host, pulled, open_teacher(settings.changed(teacher_host=[host])):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "LLM_MODEL=qwen3:8b",
        "# mine\nexport LLM_MODEL='qwen3:8b'\n",
        "model: qwen3:8b",
        "qwen3:8b\n",
        '{"model": "qwen3:8b"}',
    ],
)
def test_llmrc_names_a_teacher(text, tmp_path):
    (tmp_path / ".llmrc").write_text(text)
    assert resolve_teacher(default_settings()).model == "qwen3:8b"


def test_the_flag_beats_the_environment_which_beats_llmrc(tmp_path, monkeypatch):
    (tmp_path / ".llmrc").write_text("model: third")
    monkeypatch.setenv("LLM_MODEL", "second")
    assert resolve_teacher(default_settings()).model == "second"
    assert resolve_teacher(default_settings(teacher_model="first")).model == "first"
    for name in ("embedded", "embedded-teacher"):
        assert resolve_teacher(default_settings(teacher_model=name)).embedded


def test_a_host_that_is_no_ollama_is_named(tmp_path):
    for host in ("http://127.0.0.1:notaport", "http://[bad"):
        settings = default_settings(output_dir=str(tmp_path), teacher_model="m", teacher_host=[host])
        with pytest.raises(TeacherError), open_teacher(settings):
            pass


def test_a_proxy_of_the_environment_does_not_see_loopback(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with open_teacher(default_settings(output_dir=str(tmp_path), teacher_model="embedded")) as t:
        assert t.ask("domain_spec", {"index": 1})["fields"]
