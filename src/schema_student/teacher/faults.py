"""Name what can go wrong with one request to a teacher, by httpcore's error or HTTP's status, and with the teacher.

A fault's class says what may be done about it; its text says what happened and what a person can do:

    raise SilenceFault("http://gpu:11434 said nothing for 120 s")   # "...: raise --teacher-timeout if the model is ..."
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpcore

from schema_student.core.errors import UserError


class TeacherError(UserError):
    """The teacher cannot be asked at all: it is down, has not got the model, or needs a person."""


@dataclass(frozen=True)
class TeacherFailure:
    """One question without a usable answer: a value in ask_many's list, a reason in a row."""

    role: str
    reason: str
    kind: str = "answer"


# ---------------------------------------------------------------------------------------------------------------------
# Faults


class TeacherFault(Exception):
    """A request that failed: `what` happened, and what to do about it, by default the class's advice.

    `can_pass`: the same request may work later. `stops`: no question can be answered until a person acts.
    """

    can_pass = False
    stops = False
    advice = ""

    def __init__(self, what: str, advice: str = "") -> None:
        self.what, self.advice = what, advice or self.advice
        super().__init__(f"{self.what}: {self.advice}" if self.advice else what)

    @property
    def kind(self) -> str:
        """Name the fault as counts and rows do: "torn", "busy", ..."""
        return type(self).__name__.removesuffix("Fault").lower()


class ConnectFault(TeacherFault):
    """Nobody answers at the address."""

    can_pass = True
    advice = "start it, or name another --teacher-host"


class ProxyFault(ConnectFault):
    """The proxy of the environment does not answer, or does not let us through."""

    advice = "start it, unset HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or put the server's name into NO_PROXY"


class TLSFault(TeacherFault):
    """The server's certificate is not trusted, or it does not speak TLS."""

    stops = True
    advice = "set SSL_CERT_FILE to the certificate of its authority, or use http://"


class TornFault(TeacherFault):
    """The connection or the answer ended before its end."""

    can_pass = True
    advice = "see the server's log; a proxy before it may cut long answers"


class SilenceFault(TeacherFault):
    """No byte came for Limits.silence seconds."""

    can_pass = True
    advice = "raise --teacher-timeout if the model is that slow"


class DeadlineFault(TeacherFault):
    """The answer was not whole after Limits.deadline seconds, however busily it came."""

    can_pass = True
    advice = "raise --teacher-deadline if the model is that slow"


class SizeFault(TeacherFault):
    """More bytes than any answer has: a model that never stops, or not a model at all."""

    advice = "an answer that long is no answer; lower --teacher-num-ctx or change the model"


class ProtocolFault(TeacherFault):
    """What came is no answer of this API: a web page, broken JSON, bad UTF-8, a wrong length."""

    can_pass = True
    advice = "check that --teacher-host and --teacher-api name a model server, not a proxy's page"


class RedirectFault(TeacherFault):
    """The server sends us elsewhere; the question must not go there."""

    stops = True
    advice = "nothing was sent there; if that is your server, name it with --teacher-host"


class EncodingFault(TeacherFault):
    """The answer is compressed, which was not asked for: a bomb could hide in it."""

    stops = True
    advice = "have the proxy before it leave answers as they are"


class AccessFault(TeacherFault):
    """401 or 403: the key or password is missing or wrong."""

    stops = True
    advice = (
        "set OLLAMA_API_KEY (OPENAI_API_KEY with --teacher-api openai) for this host, "
        "or put USER:PASSWORD@ before its name"
    )


class ProxyAccessFault(AccessFault):
    """407: the proxy wants a password."""

    advice = "set HTTP_PROXY (HTTPS_PROXY for https://) with USER:PASSWORD@ before the proxy's name"


class MissingFault(TeacherFault):
    """404: the server has not got the model, or not this API."""

    stops = True
    advice = "check the model's name and --teacher-host"


class RefusalFault(TeacherFault):
    """Another 4xx: the server will not take this question."""

    advice = "see the server's log for what it misses"


class BusyFault(TeacherFault):
    """429 or 503: too many questions at once; `retry_after` seconds where the server says so."""

    can_pass = True
    advice = "it is busy; lower --teacher-concurrency, or raise OLLAMA_NUM_PARALLEL and OLLAMA_MAX_QUEUE there"
    retry_after = 0.0


class ServerFault(TeacherFault):
    """5xx, 408, or an error object where an answer should be."""

    can_pass = True
    advice = "see the server's log"


class CutFault(TeacherFault):
    """The answer ran into the end of the context or the server's limit of tokens."""

    reply: Any = None  # what there is of the answer, where the server says it


class ContextFault(TeacherFault):
    """The prompt does not fit into the context: the server cut it, or would have to."""


class AnswerFault(TeacherFault):
    """An answer that is empty, not JSON, or not valid: `problems` are its violations, `text` is what it says."""

    def __init__(self, what: str, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.text, self.problems = text, list(problems)


# ---------------------------------------------------------------------------------------------------------------------
# What httpcore raises and what HTTP answers -> faults

TLS_WORDS, END_WORDS = ("CERTIFICATE", "SSL"), ("disconnected", "closed")
NO_CONNECTION = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError)
BROKEN = (httpcore.NetworkError, httpcore.TimeoutException)
HTTP_ERRORS = (*NO_CONNECTION, *BROKEN, httpcore.RemoteProtocolError, httpcore.UnsupportedProtocol)

# The first row whose error it is and of whose words it says one (none: any). {host} names the proxy before it as well;
# {silence}: seconds that were waited.
FAULT_OF_ERROR: list[tuple[tuple[type[Exception], ...], tuple[str, ...], type[TeacherFault], str]] = [
    (NO_CONNECTION, TLS_WORDS, TLSFault, "{host} cannot be trusted ({said})"),
    (NO_CONNECTION, (), ConnectFault, "{host} does not answer ({said})"),
    ((httpcore.ReadTimeout,), (), SilenceFault, "{host} said nothing for {silence:g} s"),
    ((httpcore.RemoteProtocolError,), END_WORDS, TornFault, "{host}: the answer is torn ({said})"),
    (BROKEN, (), TornFault, "{host}: the answer is torn ({said})"),
    (HTTP_ERRORS, (), ProtocolFault, "{host} gave no proper answer ({said})"),
]
FAULT_OF_STATUS: dict[int, type[TeacherFault]] = {
    401: AccessFault,
    403: AccessFault,
    404: MissingFault,
    407: ProxyAccessFault,
    408: ServerFault,
    429: BusyFault,
    503: BusyFault,
}


def fault_of_error(error: Exception, said: str, host: str, silence: float, proxy: str = "") -> TeacherFault:
    """Turn one of HTTP_ERRORS into a fault; `said` is what it says, cleaned, `proxy` the one before the host."""
    if proxy and isinstance(error, NO_CONNECTION) and not any(word in said for word in TLS_WORDS):
        return _fault_of_proxy(error, said, host, proxy)
    said = said or ("no answer in time" if isinstance(error, NO_CONNECTION) else "no end")
    for errors, words, fault, what in FAULT_OF_ERROR:
        if isinstance(error, errors) and (not words or any(word in said for word in words)):
            return fault(what.format(host=host, said=said, silence=silence))
    raise AssertionError("the last row takes them all")


def _fault_of_proxy(error: Exception, said: str, host: str, proxy: str) -> TeacherFault:
    """Turn an error before there was a connection through a proxy into a fault; the proxy is what one connects to."""
    if isinstance(error, httpcore.ProxyError):
        fault = ProxyAccessFault if said.startswith("407") else ProxyFault
        return fault(f"the proxy {proxy} does not let us through to {host} ({said})")
    return ProxyFault(f"the proxy {proxy}, before {host}, does not answer ({said or 'no answer in time'})")


def fault_of_status(status: int, host: str, said: str) -> TeacherFault:
    """Turn an answer with another status than 200 into a fault; `said` is what its body says."""
    what = f"{host} answers {status}{f' ({said})' if said else ''}"
    if status < 400:
        return not_this_api(host, f"its status is {status}")
    fault = FAULT_OF_STATUS.get(status, ServerFault if status >= 500 else RefusalFault)
    return fault(f"the teacher refuses the question: {what}" if fault is RefusalFault else what)


def not_this_api(host: str, what: str) -> ProtocolFault:
    """Make the fault of an answer that is not one of the API."""
    return ProtocolFault(f"{host} gave no proper answer ({what})")


def without_end(host: str) -> TornFault:
    """Make the fault of an answer without its end."""
    return TornFault(f"{host}: the answer is torn (it has no end)")
