"""Define one generated answer, for those who write and those who read one."""

from __future__ import annotations

from dataclasses import dataclass

from schema_student.student.sureness import Chance


@dataclass(frozen=True)
class Generation:
    """One answer: its text without the end of turn, whether it ended by itself, and its share of its batch's time."""

    text: str
    tokens: int
    finished: bool
    seconds: float
    ids: tuple[int, ...] = ()  # the stop id included
    mask_changes: int = 0  # tokens that a constraint refused, and another one was written
    chances: tuple[Chance, ...] = ()  # of the ids, where they were measured
