"""A teacher is asked by roles: answers validated, repaired, kept on disk, in order."""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import pytest
from fake_ollama import ASK, VERDICT, after_probe, fake_ollama, fake_settings, said

from schema_student.teacher.addresses import read_addresses
from schema_student.teacher.apis import open_servers
from schema_student.teacher.budget import Limits
from schema_student.teacher.cache import AnswerCache
from schema_student.teacher.client import open_teacher
from schema_student.teacher.dispatch import Host
from schema_student.teacher.faults import TeacherError, TeacherFailure
from schema_student.teacher.retries import TRIES

pytestmark = pytest.mark.usefixtures("nothing_named")


def test_an_answer_is_validated_and_given_back(tmp_path):
    with fake_ollama(after_probe(lambda body, n: VERDICT)) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
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
    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
        assert t.ask(*ASK) == VERDICT
        assert len(fake.asked()) == 3


def test_a_timeout_is_tried_again(tmp_path):
    wait = threading.Event()

    def slow_once(body, n):
        if n == 1:
            wait.wait(3)
        return VERDICT

    chat = after_probe(slow_once)
    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path, teacher_timeout=0.3)) as t:
        assert t.ask(*ASK) == VERDICT
        wait.set()
        assert len(fake.asked()) == 2


def test_what_cannot_pass_is_not_tried_again(tmp_path):
    with (
        fake_ollama(after_probe(lambda body, n: (400, "bad option"))) as fake,
        open_teacher(fake_settings(fake, tmp_path)) as t,
    ):
        failure = t.ask_many([ASK])[0]
        assert isinstance(failure, TeacherFailure) and failure.kind == "refusal"
        assert failure.reason.startswith(f"the teacher refuses the question: {fake.host} answers 400 (bad option)")
        assert len(fake.asked()) == 1


def test_a_model_that_goes_away_says_pull(tmp_path):
    with (
        fake_ollama(after_probe(lambda body, n: 404)) as fake,
        open_teacher(fake_settings(fake, tmp_path)) as t,
        pytest.raises(TeacherError, match="ollama pull m:1"),
    ):
        t.ask_many([ASK])
    assert len(fake.asked()) == 1


def test_tries_that_are_used_up_are_a_failure_of_that_question_alone(tmp_path):
    chat = after_probe(lambda body, n: 500 if "bad" in body["messages"][1]["content"] else VERDICT)
    asks = [("judge", {"schema": {}, "query": query, "answer": {}}) for query in ("good", "bad", "good too")]
    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
        first, second, third = t.ask_many(asks)
    assert (first, third) == (VERDICT, VERDICT)
    assert isinstance(second, TeacherFailure) and "3 tries" in second.reason and "status 500" in second.reason


def test_a_server_that_dies_stops_the_run_and_keeps_what_came(tmp_path):
    with fake_ollama(after_probe(lambda body, n: VERDICT)) as fake:
        settings = fake_settings(fake, tmp_path)
        with open_teacher(settings) as t:
            t.ask(*ASK)
            t.chat.hosts = [
                Host(open_servers("ollama", read_addresses("ollama", ["127.0.0.1:9"]), Limits(1, 1, 9999))[0])
            ]
            with pytest.raises(TeacherError, match="does not answer"):
                t.ask("judge", {"schema": {}, "query": "another", "answer": {}})
        with open_teacher(settings) as t:
            assert t.ask(*ASK) == VERDICT and t.usage.asked == 0


def test_a_limit_of_tokens_is_sent_where_one_is_set(tmp_path):
    with fake_ollama(after_probe(lambda body, n: VERDICT)) as fake:
        for limit, sent in ((0, {}), (99, {"num_predict": 99})):
            with open_teacher(fake_settings(fake, tmp_path / str(limit), teacher_num_predict=limit)) as t:
                t.ask(*ASK)
            options = fake.asked()[-1]["options"]
            assert {name: value for name, value in options.items() if "predict" in name or "max" in name} == sent


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
        open_teacher(fake_settings(fake, tmp_path)) as t,
    ):
        failure = t.ask_many([ASK])[0]
        assert isinstance(failure, TeacherFailure) and reason in failure.reason
        assert len(fake.asked()) == TRIES
        assert len({body["options"]["seed"] for body in fake.asked()}) == TRIES
        with pytest.raises(TeacherError, match="no usable answer as judge"):
            t.ask(*ASK)


def test_a_question_that_overflows_the_context_is_refused_not_truncated(tmp_path):
    chat = after_probe(lambda body, n: [said(VERDICT, prompt_eval_count=8190)])
    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
        assert "raise --teacher-num-ctx" in t.ask_many([ASK])[0].reason
        assert len(fake.asked()) == 1


def shown_violations(body):
    """What a repair shows of the last answer: "" for a question that is put for the first time."""
    messages = body["messages"]
    return messages[-1]["content"] if len(messages) == 4 and messages[2]["role"] == "assistant" else ""


def test_an_invalid_answer_is_shown_its_violations_and_repaired(tmp_path):
    chat = after_probe(lambda body, n: VERDICT if shown_violations(body) else '{"is_good": "yes"}')
    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
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
        open_teacher(fake_settings(fake, tmp_path, teacher_repairs=repairs)) as t,
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
            with open_teacher(fake_settings(fake, tmp_path)) as t:
                assert t.ask(*ASK) == VERDICT
                found.append(t.rejected_answers())
        assert found[0] == found[1] and found[0][0]["answer"] == "prose" and len(fake.asked()) == 2


@pytest.mark.parametrize("around", ["```json\n%s\n```", "Here you are:\n%s\nI hope it helps.", "\n %s \n"])
def test_json_is_taken_out_of_fences_and_prose(around, tmp_path):
    chat = after_probe(lambda body, n: around % json.dumps(VERDICT))
    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
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
        open_teacher(fake_settings(fake, tmp_path, teacher_concurrency=3)) as t,
    ):
        answers = t.ask_many(asks)
    assert [answer["reason"] for answer in answers] == [str(i) for i in range(40)]
    assert 1 < fake.most_running <= 3


def test_nothing_is_asked_twice_not_even_the_probe(tmp_path):
    with fake_ollama(after_probe(lambda body, n: VERDICT)) as fake:
        for _ in range(2):
            with open_teacher(fake_settings(fake, tmp_path)) as t:
                assert t.ask_many([ASK, ASK])[0] == VERDICT
        assert len(fake.bodies) <= 3  # the probe, and the same question twice at once
        with open_teacher(fake_settings(fake, tmp_path, teacher_temperature=0.1)) as t:
            t.ask(*ASK)
        assert len(fake.asked()) > 1


def test_failures_are_not_cached(tmp_path):
    chat = after_probe(lambda body, n: "" if n <= 3 else VERDICT)
    with fake_ollama(chat) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
        assert isinstance(t.ask_many([ASK])[0], TeacherFailure)
        assert t.ask(*ASK) == VERDICT


def test_several_hosts_share_the_questions(tmp_path):
    chat = after_probe(lambda body, n: VERDICT)
    other = after_probe(lambda body, n: VERDICT)
    asks = [("judge", {"schema": {}, "query": str(i), "answer": {}}) for i in range(20)]
    with fake_ollama(chat) as one, fake_ollama(other) as two:
        settings = fake_settings(one, tmp_path, teacher_host=[one.host, two.host])
        with open_teacher(settings) as t:
            t.ask_many(asks)
        assert len(one.asked()) > 3 and len(two.asked()) > 3 and len(one.asked()) + len(two.asked()) == 20


def test_a_damaged_cache_is_named(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_text("this is no database, but it is long enough to be taken for one " * 40)
    with pytest.raises(TeacherError, match=r"cache\.sqlite.*move it away"):
        AnswerCache(path)


FULL, BROKEN = r"disk is full\); free some space", r"error\); mend that"


@pytest.mark.parametrize(
    ("free", "limit", "words"),
    [(2**20 - 1, resource.RLIM_INFINITY, FULL), (2**30, 10_000, FULL), (2**20, resource.RLIM_INFINITY, BROKEN)],
)
def test_what_sqlite_calls_an_error_of_the_disk_may_be_a_full_one(free, limit, words, tmp_path, monkeypatch):
    class Failing:
        def execute(self, *_):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
            raise error

        def close(self):
            """Nothing is open."""

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_FSIZE: (limit, limit)}.__getitem__)
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **how: Failing())
    with pytest.raises(TeacherError, match=words):
        AnswerCache(tmp_path / "cache.sqlite")


def test_a_full_disk_does_not_cost_the_answers_that_are_cached(tmp_path, monkeypatch):
    opened, connect = [], sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **how: opened.append(connect(*given, **how)) or opened[-1])
    with closing(AnswerCache(tmp_path / "cache.sqlite")) as cache:
        cache.put("a", "ast", "m", {"n": 1})
        opened[0].execute("PRAGMA max_page_count = 1")
        with pytest.raises(TeacherError, match=r"full\); free some space .*the answers in it are kept$") as caught:
            cache.put("b", "ast", "m", "x" * 100_000)
        assert "move it away" not in str(caught.value) and cache.get("a") == {"n": 1}
