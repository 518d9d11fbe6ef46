"""What follows a fault or an answer of no use is decided by pure functions."""

import pytest

from schema_student.teacher import faults
from schema_student.teacher.retries import (
    TRIES,
    AskAnew,
    DropFormat,
    GiveUp,
    Repair,
    Retry,
    Stop,
    after_answer,
    after_fault,
)

TORN, DOWN = faults.TornFault("h: torn"), faults.ConnectFault("h does not answer (refused)")
NO_GRAMMAR = faults.ServerFault("h answers 500 (failed to parse grammar)")
NOT_JSON = faults.AnswerFault("the answer is not JSON", "prose", ["it is not JSON"])


@pytest.mark.parametrize(
    ("fault", "faults_so_far", "facts", "decision"),
    [
        (TORN, 1, {}, Retry()),
        (TORN, 3, {}, GiveUp(f"no answer after 3 tries: {TORN}")),
        (TORN, 3, {"alone": True}, GiveUp(f"no answer after 3 tries: {TORN}")),
        (DOWN, 2, {"alone": True}, Retry()),
        (DOWN, 3, {}, GiveUp(f"no answer after 3 tries: {DOWN}")),
        (DOWN, 3, {"alone": True}, Stop()),
        (faults.AccessFault("h answers 401"), 1, {}, Stop()),
        (
            faults.SizeFault("h sent more than 9 bytes"),
            1,
            {},
            GiveUp(str(faults.SizeFault("h sent more than 9 bytes"))),
        ),
        (NO_GRAMMAR, 3, {"formatted": True}, DropFormat()),
        (NO_GRAMMAR, 1, {}, Retry()),
    ],
)
def test_only_what_can_pass_is_tried_again_and_twice_at_most(fault, faults_so_far, facts, decision):
    assert after_fault(fault, faults_so_far, retries=2, **facts) == decision


def test_a_busy_server_says_how_long_to_wait():
    busy = faults.BusyFault("h answers 429")
    busy.retry_after = 7.0
    assert after_fault(busy, 1, retries=2) == Retry(7.0) and after_fault(faults.BusyFault("h"), 1, 2) == Retry(0.0)


def test_an_answer_of_no_use_is_repaired_then_asked_for_anew_then_given_up():
    assert after_answer(NOT_JSON, 1, 0, 1) == Repair(NOT_JSON)
    assert after_answer(NOT_JSON, 2, 1, 1) == AskAnew()
    assert after_answer(NOT_JSON, TRIES, 1, 1).reason.endswith("another --teacher-model may do better")
    assert after_answer(NOT_JSON, TRIES, 2, 9) == Repair(NOT_JSON)
    assert after_answer(faults.CutFault("cut"), 1, 0, 1) == AskAnew()


STATUSES = {204: "protocol", 400: "refusal", 401: "access", 404: "missing", 408: "server", 418: "refusal"}
STATUSES |= {429: "busy", 500: "server", 503: "busy", 599: "server"}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_every_status_is_a_fault_that_says_what_to_do(status, kind):
    fault = faults.fault_of_status(status, "http://h", "so it says")
    assert fault.kind == kind and fault.advice and str(fault) == f"{fault.what}: {fault.advice}"
    assert "http://h" in fault.what and str(status) in fault.what
