"""Limit what one request may take: seconds without a byte, seconds in all, bytes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from schema_student.core.setting_groups import AnswersSettings, ServerSettings
from schema_student.teacher.faults import DeadlineFault, SizeFault

ANSWER_BYTES, TOKEN_BYTES = 64 * 1024, 1024  # an answer may have: some, and as many a token of context, as sent


@dataclass(frozen=True)
class Limits:
    """Bounds of one request: seconds without a byte, seconds in all, bytes in all."""

    silence: float
    deadline: float
    max_bytes: int


def request_limits(server: ServerSettings, answers: AnswersSettings) -> Limits:
    """Read the bounds that the settings give a request."""
    max_bytes = ANSWER_BYTES + TOKEN_BYTES * answers.teacher_num_ctx
    return Limits(server.teacher_timeout, server.teacher_deadline, max_bytes)


class Budget:
    """What is left to one request of its limits, counted from now."""

    def __init__(self, host: str, limits: Limits) -> None:
        self.host, self.limits = host, limits
        self._ends_at = time.monotonic() + limits.deadline
        self._bytes_left = limits.max_bytes

    def seconds_left(self, timeout: float | None = None) -> float:
        """Return the seconds that the request may still wait, at most `timeout`; raises DeadlineFault at its end."""
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise DeadlineFault(f"{self.host} had no whole answer after {self.limits.deadline:g} s")
        return left if timeout is None else min(timeout, left)

    def spend_bytes(self, count: int) -> None:
        """Count bytes that came; raises SizeFault beyond the limit."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise SizeFault(f"{self.host} sent more than {self.limits.max_bytes} bytes")
