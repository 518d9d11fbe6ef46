"""What can go wrong with one request to a teacher, and with the teacher as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schema_student.core.errors import UserError


class TeacherError(UserError):
    """The teacher cannot be asked at all: it is down, has not got the model, or needs a person."""


class TeacherFault(Exception):
    """A request that failed: its text says what happened and what to do.

    `can_pass`: the same request may work later. `stops`: no question can be answered until a person acts.
    """

    can_pass = False
    stops = False

    @property
    def kind(self) -> str:
        """Its name in counts and rows: "torn", "busy", ..."""
        return type(self).__name__.removesuffix("Fault").lower()


class ConnectFault(TeacherFault):
    """Nobody answers at the address."""

    can_pass = True


class TLSFault(TeacherFault):
    """The server's certificate is not trusted, or it does not speak TLS."""

    stops = True


class TornFault(TeacherFault):
    """The connection or the answer ended before its end."""

    can_pass = True


class SilenceFault(TeacherFault):
    """No byte came for Limits.silence seconds."""

    can_pass = True


class DeadlineFault(TeacherFault):
    """The answer was not whole after Limits.deadline seconds, however busily it came."""

    can_pass = True


class SizeFault(TeacherFault):
    """More bytes than any answer has: a model that never stops, or not a model at all."""


class ProtocolFault(TeacherFault):
    """What came is no answer of this API: a web page, broken JSON, bad UTF-8, a wrong length."""

    can_pass = True


class RedirectFault(TeacherFault):
    """The server sends us elsewhere; the question must not go there."""

    stops = True


class EncodingFault(TeacherFault):
    """The answer is compressed, which was not asked for: a bomb could hide in it."""

    stops = True


class AccessFault(TeacherFault):
    """401 or 403: the key is missing or wrong."""

    stops = True


class MissingFault(TeacherFault):
    """404: the server has not got the model, or not this API."""

    stops = True


class RefusalFault(TeacherFault):
    """Another 4xx: the server will not take this question."""


class BusyFault(TeacherFault):
    """429 or 503: too many questions at once; `retry_after` seconds where the server says so."""

    can_pass = True

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerFault(TeacherFault):
    """5xx, 408, or an error object where an answer should be."""

    can_pass = True


class CutFault(TeacherFault):
    """The answer ran into the end of the context or the server's limit of tokens."""


class ContextFault(TeacherFault):
    """The prompt does not fit into the context: the server cut it, or would have to."""


class AnswerFault(TeacherFault):
    """An answer that is empty, not JSON, or not valid: `problems` are its violations, `text` is what it says."""

    def __init__(self, reason: str, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.text, self.problems = text, list(problems)


@dataclass(frozen=True)
class TeacherFailure:
    """One question without a usable answer: a value in ask_many's list, a reason in a row."""

    role: str
    reason: str
    kind: str = "answer"
