"""Open sockets for httpcore whose every wait ends with the budget of the request that they carry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpcore

from schema_student.teacher.budget import Budget

BudgetNow = Callable[[], Budget]  # of the request that this thread waits for: a connection outlives a request


class BudgetedStream(httpcore.NetworkStream):
    """A socket whose every wait ends at the deadline of the request, also between the bytes of a header.

    What is written is sent when something is to be read: head and body leave in one packet, not in three.
    """

    def __init__(self, inner: httpcore.NetworkStream, budget: BudgetNow) -> None:
        self._inner, self._budget, self._held = inner, budget, b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        held, self._held = self._held, b""
        if held:
            # A server that refuses a question early closes before it has read all: its answer is still to be read.
            with suppress(httpcore.WriteError):
                self._wait(lambda seconds: self._inner.write(held, seconds), timeout)
        data: bytes = self._wait(lambda seconds: self._inner.read(max_bytes, seconds), timeout)
        self._budget().spend_bytes(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._held += buffer

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> BudgetedStream:
        secured = self._wait(lambda seconds: self._inner.start_tls(ssl_context, server_hostname, seconds), timeout)
        return BudgetedStream(secured, self._budget)

    def _wait(self, action: Callable[[float], Any], timeout: float | None) -> Any:
        try:
            return action(self._budget().seconds_left(timeout))
        except httpcore.TimeoutException:
            self._budget().seconds_left()  # the deadline, if it was that
            raise

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class BudgetedBackend(httpcore.NetworkBackend):
    """Opens such sockets."""

    def __init__(self, budget: BudgetNow) -> None:
        self._budget = budget
        self._inner = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> BudgetedStream:  # type: ignore[override]
        opened = self._inner.connect_tcp(host, port, self._budget().seconds_left(timeout), **options)
        return BudgetedStream(opened, self._budget)
