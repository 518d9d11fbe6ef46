"""Questions reach hosts bounded, least loaded first, past hosts that fail; results come in order."""

from __future__ import annotations

import random
import threading
import time
from types import SimpleNamespace

import pytest
from asking import ask, settings_for
from fault_server import VERDICT, Fault, fault_server, good
from server_faults import FAULTS

from schema_student.teacher import dispatch
from schema_student.teacher.client import open_teacher
from schema_student.teacher.dispatch import LONGEST_PAUSE, Again, Dispatcher, Done, Host, pause_seconds, run_all
from schema_student.teacher.faults import TeacherError


class Load:
    """Counts who is asked at the same time."""

    def __init__(self):
        self.lock, self.now, self.most, self.asked = threading.Lock(), {}, {}, []

    def __call__(self, question, host, seconds=0.0):
        with self.lock:
            self.now[host.server] = self.now.get(host.server, 0) + 1
            self.most[host.server] = max(self.now[host.server], self.most.get(host.server, 0))
            self.asked.append((question, host.server))
        time.sleep(seconds)
        with self.lock:
            self.now[host.server] -= 1


pytestmark = pytest.mark.usefixtures("nothing_named")


def test_results_come_in_order_whatever_the_timing():
    rng = random.Random(1)

    def answer(question, host):
        time.sleep(rng.random() * 0.004)
        return Again(0.001, failed=True) if rng.random() < 0.3 else Done(question * 10)

    assert run_all(range(60), answer, [Host("a"), Host("b")], slots=4) == [i * 10 for i in range(60)]


@pytest.mark.parametrize("slots", [1, 3])
def test_no_host_gets_more_than_its_slots(slots):
    load = Load()

    def answer(question, host):
        load(question, host, 0.002)
        return Done(None)

    run_all(range(40), answer, [Host("a"), Host("b")], slots)
    assert max(load.most.values()) <= slots and set(load.most) == {"a", "b"}


def test_all_slots_of_all_hosts_are_used_by_threads_that_hold_up_no_exit_and_each_answer_ticks():
    everybody, ticks = threading.Barrier(6, timeout=30), []

    def answer(question, host):
        everybody.wait()
        return Done(threading.current_thread().daemon)

    assert run_all(range(6), answer, [Host("a"), Host("b")], 3, lambda: ticks.append(1)) == [True] * 6
    assert len(ticks) == 6 and run_all([], answer, [Host("a")], 1) == []


def test_the_least_loaded_host_is_asked():
    """A host that answers nothing until 50 questions are answered is given no more than it has slots."""
    asked, enough = [], threading.Event()

    def answer(question, host):
        asked.append(host.server)
        if host.server == "slow":
            assert enough.wait(60)
        elif asked.count("fast") >= 50:
            enough.set()
        return Done(None)

    run_all(range(60), answer, [Host("slow"), Host("fast")], slots=2)
    assert asked.count("fast") >= 50 and "slow" in asked


def test_a_question_that_failed_goes_to_another_host_at_once():
    load = Load()

    def answer(question, host):
        load(question, host)
        return Again(60.0, failed=True) if host.server == "bad" else Done(host.server)

    assert run_all(range(8), answer, [Host("bad"), Host("good")], slots=1) == ["good"] * 8


def test_a_host_that_is_gone_is_set_aside_and_tried_again(monkeypatch):
    monkeypatch.setattr(dispatch, "FIRST_PAUSE", 0.05)
    answered, failed = [], []

    def answer(question, host):
        time.sleep(0.002)
        if host.server == "b" and len(answered) < 60:
            failed.append(question)
            return Again(0.01, failed=True, gone=True)
        answered.append(host.server)
        return Done(host.server)

    found = run_all(range(200), answer, [Host("a"), Host("b")], slots=1)
    assert len(found) == 200 and set(answered[:60]) == {"a"} and "b" in answered[60:]
    assert 0 < len(failed) < 10  # not one failure a question


def test_by_a_simulated_clock_hosts_take_turns_rest_and_come_back(monkeypatch):
    clock, hosts, asked = [0.0], [Host("a"), Host("b")], []
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(dispatch, "pause_seconds", lambda failures: 10.0 * failures)
    gone, failed = Again(60.0, failed=True, gone=True), Again(60.0, failed=True)
    outcomes = [gone, Done(0), failed, failed, Done(0), failed, failed, failed]  # of b, which answers all from then on

    def answer(question, host):
        asked.append(host.server)
        return outcomes.pop(0) if host.server == "b" and outcomes else Done(0)

    def ask_at(now):
        clock[0], before = now, len(asked)
        run_all([0], answer, hosts, slots=1)
        return "".join(asked[before:])

    assert [ask_at(0.0) for _ in range(2)] == ["a", "ba"]  # the least asked; b does not even answer
    assert [ask_at(9.9), ask_at(10.0)] == ["a", "b"]  # when it has rested, it is the least asked
    assert [ask_at(10.0) for _ in range(3)] == ["ba", "ba", "b"]  # fewer than three failures in a row are no rest
    assert [ask_at(10.0) for _ in range(4)] == ["a", "ba", "ba", "ba"]  # both asked alike: the first named
    assert [ask_at(39.9), ask_at(40.0)] == ["a", "b"] and not outcomes
    assert [host.failures for host in hosts] == [0, 0] and sum(host.in_flight for host in hosts) == 0
    assert [host.asked for host in hosts] == [asked.count("a"), asked.count("b")]


def test_questions_go_out_in_order_to_the_least_loaded_then_the_least_asked_host():
    a, b = hosts = [Host("a"), Host("b")]
    dispatcher = Dispatcher("stuvwxyz", hosts, slots=2)
    assert [dispatcher.offer(0.0) for _ in range(5)] == [(0, "s", a), (1, "t", b), (2, "u", a), (3, "v", b), None]
    assert (a.in_flight, b.in_flight, a.asked, b.asked) == (2, 2, 2, 2)
    dispatcher.give_back(1, b, Done(0), 1.0)
    assert [dispatcher.offer(1.0) for _ in range(2)] == [(4, "w", b), None]
    dispatcher.give_back(0, a, Done(0), 2.0)
    dispatcher.give_back(4, b, Done(0), 2.0)
    assert dispatcher.offer(2.0) == (5, "x", a)  # of as many in flight, that was asked less
    dispatcher.give_back(2, a, Done(0), 3.0)
    dispatcher.give_back(5, a, Done(0), 3.0)
    assert [dispatcher.offer(3.0) for _ in range(2)] == [(6, "y", a), (7, "z", b)]  # none before one


def test_what_is_put_again_and_when_by_a_clock_of_the_caller(monkeypatch):
    monkeypatch.setattr(dispatch, "pause_seconds", lambda failures: 10.0 * failures)
    a, b = hosts = [Host("a"), Host("b")]
    dispatcher = Dispatcher("xy", hosts, slots=1)
    assert dispatcher.offer(0.0) == (0, "x", a)
    dispatcher.give_back(0, a, Again(5.0), 1.0)  # no fault of the host: it is asked again
    assert dispatcher.offer(1.0) == (1, "y", b)
    assert dispatcher.offer(5.9) is None and dispatcher.seconds_to_wait(5.0) == 1.0
    assert dispatcher.seconds_to_wait(5.9999) == 0.001  # no less
    assert dispatcher.offer(6.0) == (0, "x", a) and dispatcher.seconds_to_wait(6.0) is None
    dispatcher.give_back(0, a, Again(5.0, failed=True), 7.0)  # at another host at once
    assert dispatcher.seconds_to_wait(7.0) == LONGEST_PAUSE and a.failures == 1 and a.rests_until == 0.0
    dispatcher.give_back(1, b, Done(0), 7.0)
    assert dispatcher.offer(7.0) == (0, "x", b)  # though a was asked as often and stands first
    dispatcher.give_back(0, b, Again(5.0, failed=True, gone=True), 8.0)
    assert b.rests_until == 18.0 and dispatcher.offer(8.0) == (0, "x", a)
    dispatcher.give_back(0, a, Again(5.0, failed=True, gone=True), 8.0)  # it was the second of a's failures in a row
    assert a.rests_until == 28.0 and dispatcher.offer(13.0) is None  # both rest
    assert dispatcher.seconds_to_wait(13.0) == 5.0 and dispatcher.offer(18.0) == (0, "x", b)
    dispatcher.give_back(0, b, Done(0), 18.0)
    assert dispatcher.take() is None and dispatcher.offer(99.0) is None


def test_a_host_alone_never_rests_and_its_question_waits_its_time():
    (a,) = hosts = [Host("a")]
    dispatcher = Dispatcher("x", hosts, slots=1)
    for second in range(5):
        assert dispatcher.offer(second) == (0, "x", a)
        dispatcher.give_back(0, a, Again(1.0, failed=True, gone=True), second)
    assert a.failures == 5 and a.rests_until == 0.0
    dispatcher.stop()
    assert dispatcher.take() is None


def test_what_waits_holds_no_slot():
    """With one slot, a question that pauses for long does not keep the others from being answered."""
    order = []

    def answer(question, host):
        order.append(question)
        return Again(0.05) if order.count(0) == 1 and question == 0 else Done(question)

    assert run_all(range(5), answer, [Host("a")], slots=1) == [0, 1, 2, 3, 4]
    assert order == [0, 1, 2, 3, 4, 0]


def test_the_first_error_stops_all():
    asked = []

    def answer(question, host):
        asked.append(question)
        if question == 3:
            raise TeacherError("gone")
        return Done(None)

    with pytest.raises(TeacherError, match="gone"):
        run_all(range(1000), answer, [Host("a")], slots=2)
    time.sleep(0.02)
    assert len(asked) < 1000


def test_pauses_double_are_jittered_and_bounded(monkeypatch):
    monkeypatch.setattr(dispatch, "FIRST_PAUSE", 0.5)
    for failures in range(1, 40):
        drawn = [pause_seconds(failures) for _ in range(20)]
        full = min(dispatch.LONGEST_PAUSE, 0.5 * 2 ** (failures - 1))
        assert full / 2 <= min(drawn) < max(drawn) <= full
    assert pause_seconds(10_000) <= dispatch.LONGEST_PAUSE


# Real servers


def echo(connection):
    """The number of the question, after a time that is longer for even ones."""
    number = connection.body["messages"][1]["content"].partition('"number": ')[2].partition("}")[0]
    connection.server.ended.wait(0.01 * (int(number) % 2))
    connection.whole(good(connection, {"is_good": True, "reason": number}))


def test_answers_of_three_hosts_come_in_order(tmp_path):
    with fault_server() as one, fault_server() as two, fault_server() as three:
        servers = [one, two, three]
        for server in servers:
            server.fault = Fault("echo", "", "", echo)
        settings = settings_for(one, tmp_path, teacher_host=[s.host for s in servers], teacher_concurrency=2)
        with open_teacher(settings) as teacher:
            answers = teacher.ask_many([ask(i) for i in range(30)])
    assert [answer["reason"] for answer in answers] == [str(i) for i in range(30)]
    assert sum(len(server.chats) for server in servers) == 30 and all(len(server.chats) > 3 for server in servers)


def test_a_run_goes_on_without_a_host_that_ends_in_mid_run(tmp_path):
    with fault_server() as one, fault_server() as two:
        two.fault = FAULTS["connection refused"]
        settings = settings_for(one, tmp_path, teacher_host=[one.host, two.host], teacher_retries=2)
        with open_teacher(settings) as teacher:
            assert teacher.ask_many([ask(i) for i in range(20)]) == [VERDICT] * 20
        assert len(one.chats) == 20 and 1 <= len(two.chats) <= settings.server.teacher_concurrency


def test_a_host_that_is_down_at_the_start_is_set_aside_with_a_note(tmp_path, capsys):
    with fault_server() as one:
        settings = settings_for(one, tmp_path, teacher_host=["http://127.0.0.1:9", one.host])
        with open_teacher(settings) as teacher:
            assert teacher.ask_many([ask(i) for i in range(4)]) == [VERDICT] * 4
    assert "note: Ollama does not answer at http://127.0.0.1:9" in capsys.readouterr().out


def test_hosts_that_have_different_models_are_refused(tmp_path):
    with fault_server() as one, fault_server() as two:
        two.digest = "another"
        settings = settings_for(one, tmp_path, teacher_host=[one.host, two.host])
        with pytest.raises(TeacherError, match="different versions of m:1"), open_teacher(settings):
            pass
