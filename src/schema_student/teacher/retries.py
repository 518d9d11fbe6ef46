"""Decide what follows a failed request or a useless answer: pure functions, whose caller acts."""

from __future__ import annotations

from dataclasses import dataclass

from schema_student.teacher.faults import (
    AnswerFault,
    BusyFault,
    ConnectFault,
    CutFault,
    RefusalFault,
    ServerFault,
    TeacherFault,
)

TRIES = 3  # times that a question is put before an unusable answer to it is final


@dataclass(frozen=True)
class Retry:
    """Send the same again, after so many seconds at least."""

    least_pause: float = 0.0


@dataclass(frozen=True)
class DropFormat:
    """Ask again at once, with the answer's JSON Schema among the words of the question."""


@dataclass(frozen=True)
class AskAnew:
    """Ask again, with another seed."""


@dataclass(frozen=True)
class Repair:
    """Show the answer its violations and ask for it again."""

    answer: AnswerFault


@dataclass(frozen=True)
class GiveUp:
    """This question has no answer."""

    reason: str


@dataclass(frozen=True)
class Stop:
    """No question can be answered until a person acts."""


def after_fault(
    fault: TeacherFault, faults: int, retries: int, formatted: bool = False, alone: bool = False
) -> Retry | DropFormat | GiveUp | Stop:
    """Decide what follows the n-th failed request for a question; what can pass is tried again, `retries` times.

    `formatted`: the server was given the answer's JSON Schema. `alone`: no other host has answered of late.
    """
    if formatted and _dislikes_format(fault):
        return DropFormat()
    if fault.stops:
        return Stop()
    if not fault.can_pass:
        return GiveUp(str(fault))
    if faults > retries:
        gone = alone and isinstance(fault, ConnectFault)
        return Stop() if gone else GiveUp(f"no answer after {faults} tries: {fault}")
    return Retry(fault.retry_after if isinstance(fault, BusyFault) else 0.0)


def _dislikes_format(fault: TeacherFault) -> bool:
    """Whether a server stumbled over the answer's JSON Schema: not all of them can turn each into a grammar."""
    said = str(fault).casefold() if isinstance(fault, (RefusalFault, ServerFault)) else ""
    return any(word in said for word in ("grammar", "format", "json schema", "json_schema"))


def after_answer(fault: AnswerFault | CutFault, tries: int, repaired: int, repairs: int) -> AskAnew | Repair | GiveUp:
    """Decide what follows the n-th useless answer: `repairs` times it is shown what is wrong, else asked for anew."""
    if tries >= max(TRIES, 1 + repairs):
        return GiveUp(f"{fault} ({tries} tries); another --teacher-model may do better")
    if isinstance(fault, AnswerFault) and fault.problems and repaired < repairs:
        return Repair(fault)
    return AskAnew()
