"""What follows a fault or an answer of no use is decided by pure functions."""

import httpcore
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


FAULTS = {
    **{"ConnectFault": "passes", "ProxyFault": "passes", "TLSFault": "stops", "TornFault": "passes"},
    **{"SilenceFault": "passes", "DeadlineFault": "passes", "SizeFault": "", "ProtocolFault": "passes"},
    **{"RedirectFault": "stops", "EncodingFault": "stops", "AccessFault": "stops", "ProxyAccessFault": "stops"},
    **{"MissingFault": "stops", "RefusalFault": "", "BusyFault": "passes", "ServerFault": "passes", "CutFault": ""},
    "ContextFault": "",
}


@pytest.mark.parametrize(("name", "what"), FAULTS.items())
def test_what_can_pass_is_tried_again_and_what_needs_a_person_stops_all(name, what):
    fault = getattr(faults, name)("it")
    assert fault.kind == name.removesuffix("Fault").lower()
    decisions = {"passes": Retry(), "stops": Stop(), "": GiveUp(str(fault))}
    assert after_fault(fault, 1, retries=1) == decisions[what]


@pytest.mark.parametrize(
    ("error", "said", "proxy", "kind", "what"),
    [
        (httpcore.ConnectError, "refused", "", "connect", "h does not answer (refused)"),
        (httpcore.ConnectTimeout, "", "", "connect", "h does not answer (no answer in time)"),
        (
            httpcore.ConnectError,
            "CERTIFICATE_VERIFY_FAILED",
            "",
            "tls",
            "h cannot be trusted (CERTIFICATE_VERIFY_FAILED)",
        ),
        (httpcore.ConnectError, "[SSL] x", "p", "tls", "h cannot be trusted ([SSL] x)"),
        (httpcore.ReadTimeout, "x", "", "silence", "h said nothing for 2.5 s"),
        (httpcore.ReadError, "", "", "torn", "h: the answer is torn (no end)"),
        (httpcore.WriteTimeout, "x", "", "torn", "h: the answer is torn (x)"),
        (
            httpcore.RemoteProtocolError,
            "Server disconnected",
            "",
            "torn",
            "h: the answer is torn (Server disconnected)",
        ),
        (httpcore.RemoteProtocolError, "peer closed", "", "torn", "h: the answer is torn (peer closed)"),
        (httpcore.RemoteProtocolError, "bad line", "", "protocol", "h gave no proper answer (bad line)"),
        (httpcore.UnsupportedProtocol, "x", "", "protocol", "h gave no proper answer (x)"),
        (httpcore.ConnectError, "refused", "p", "proxy", "the proxy p, before h, does not answer (refused)"),
        (httpcore.ConnectTimeout, "", "p", "proxy", "the proxy p, before h, does not answer (no answer in time)"),
        (httpcore.ProxyError, "407 x", "p", "proxyaccess", "the proxy p does not let us through to h (407 x)"),
        (httpcore.ProxyError, "502 x", "p", "proxy", "the proxy p does not let us through to h (502 x)"),
    ],
)
def test_an_error_of_the_connection_is_a_fault_that_says_what_happened(error, said, proxy, kind, what):
    fault = faults.fault_of_error(error("e"), said, "h", 2.5, proxy)
    assert (fault.kind, fault.what) == (kind, what) and str(fault).startswith(f"{what}: ")


@pytest.mark.parametrize("word", ["grammar", "format", "JSON Schema", "json_schema"])
def test_a_server_that_stumbles_over_a_schema_is_asked_without(word):
    for fault in (faults.RefusalFault(f"no {word}"), faults.ServerFault(f"no {word}")):
        assert after_fault(fault, 1, 1, formatted=True) == DropFormat()
    assert after_fault(faults.SizeFault(f"no {word}"), 1, 1, formatted=True) != DropFormat()


def test_a_status_is_said_with_what_the_body_says():
    said = [faults.fault_of_status(status, "h", words).what for status, words in ((500, ""), (400, "no"), (302, "x"))]
    assert said == [
        "h answers 500",
        "the teacher refuses the question: h answers 400 (no)",
        "h gave no proper answer (its status is 302)",
    ]
