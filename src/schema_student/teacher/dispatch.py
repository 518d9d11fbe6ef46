"""Dispatch questions to hosts: so many at a time at each, the least loaded first; a question that waits holds no slot.

A question that is to be tried again goes back to the queue with the time from which it may; its slot goes to another
question meanwhile. A host that fails is set aside while there are others, and tried again later. Results come in the
order of the questions, whatever the order in which they were answered.

    hosts = [Host(server) for server in servers]
    answers = run_all(questions, ask, hosts, slots=4)   # ask(question, host) -> Done(answer) | Again(seconds)
"""

from __future__ import annotations

import heapq
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from schema_student.teacher.apis import ModelServer

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds
FAILURES_BEFORE_REST = 3  # in a row, of a host that answers at all

Q = TypeVar("Q")
R = TypeVar("R")


def pause_seconds(failures: int) -> float:
    """Compute the wait after the n-th failure in a row: doubling, jittered so that many do not come back at once."""
    return random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16))


@dataclass(eq=False)
class Host:
    """A server and how it does."""

    server: ModelServer
    in_flight: int = 0
    asked: int = 0
    failures: int = 0  # in a row
    rests_until: float = 0.0
    checked_at: float = float("-inf")  # when its model's digest was last seen
    unconfirmed: list[str] = field(default_factory=list)  # answers kept since then


@dataclass(frozen=True)
class Done(Generic[R]):
    """A question's result."""

    result: R


@dataclass(frozen=True)
class Again:
    """Ask again after so many seconds. `failed`: it was the host's fault; `gone`: it does not even answer."""

    seconds: float = 0.0
    failed: bool = False
    gone: bool = False


class Dispatcher(Generic[Q]):
    """The questions that wait and the hosts that they go to; one lock for both.

    Threads `take` and `give_back`; a simulation calls `offer` and `give_back` with a clock of its own.
    """

    def __init__(self, questions: Sequence[Q], hosts: Sequence[Host], slots: int) -> None:
        self.hosts, self.slots = hosts, slots
        self._questions = questions
        self._waiting = [(0.0, i) for i in range(len(questions))]  # (not before, position): a heap
        self._last: dict[int, Host] = {}  # who failed a question, so that another host gets it next
        self._open = len(questions)
        self._changed = threading.Condition()

    def take(self) -> tuple[int, Q, Host] | None:
        """Take the next question and its host, as soon as there are both; None when all are answered."""
        with self._changed:
            while self._open > 0:
                now = time.monotonic()
                if (taken := self.offer(now)) is not None:
                    return taken
                self._changed.wait(self.seconds_to_wait(now))
            return None

    def offer(self, now: float) -> tuple[int, Q, Host] | None:
        """Give the next question to its host, where there are both at this time; else None."""
        with self._changed:
            if (host := self._host_of_next(now)) is None:
                return None
            _, i = heapq.heappop(self._waiting)
            host.in_flight += 1
            host.asked += 1
            return i, self._questions[i], host

    def _host_of_next(self, now: float) -> Host | None:
        """Find the host for the question that is to be put next, where its time has come and a host is free."""
        if not self._waiting or self._waiting[0][0] > now:
            return None
        return self._free_host(self._last.get(self._waiting[0][1]), now)

    def seconds_to_wait(self, now: float) -> float | None:
        """Compute the seconds until a question may be put or a host has rested; None: until one is given back."""
        if not self._waiting:
            return None
        ready = self._waiting[0][0]
        return max(0.001, (ready if ready > now else self._rest_ends(now)) - now)

    def _free_host(self, failed: Host | None, now: float) -> Host | None:
        free = [host for host in self.hosts if host.in_flight < self.slots and host.rests_until <= now]
        return min(free, key=lambda host: (host is failed, host.in_flight, host.asked), default=None)

    def _rest_ends(self, now: float) -> float:
        return min((host.rests_until for host in self.hosts if host.rests_until > now), default=now + LONGEST_PAUSE)

    def give_back(self, i: int, host: Host, outcome: Done[Any] | Again, now: float | None = None) -> None:
        """Free the slot; a question to be asked again waits its time. `now`: by another clock than this machine's."""
        with self._changed:
            host.in_flight -= 1
            if isinstance(outcome, Again):
                self._put_back(i, host, outcome, time.monotonic() if now is None else now)
            else:
                host.failures = 0
                self._open -= 1
            if self._open > 0:
                self._changed.notify()
            else:
                self._changed.notify_all()

    def _put_back(self, i: int, host: Host, outcome: Again, now: float) -> None:
        if outcome.failed:
            self._count_failure(host, outcome.gone, now)
            self._last[i] = host
        elsewhere = any(other is not host and other.rests_until <= now for other in self.hosts)
        pause = 0.0 if outcome.failed and elsewhere else outcome.seconds
        heapq.heappush(self._waiting, (now + pause, i))

    def _count_failure(self, host: Host, gone: bool, now: float) -> None:
        host.failures += 1
        if len(self.hosts) > 1 and (gone or host.failures >= FAILURES_BEFORE_REST):
            host.rests_until = now + pause_seconds(host.failures)

    def stop(self) -> None:
        """Let nobody take another question."""
        with self._changed:
            self._open = 0
            self._changed.notify_all()


Finished = queue.SimpleQueue[tuple[int, Any, BaseException | None]]  # position, result, error


def run_all(
    questions: Sequence[Q],
    ask: Callable[[Q, Host], Done[R] | Again],
    hosts: Sequence[Host],
    slots: int,
    tick: Callable[[], Any] = lambda: None,
) -> list[R]:
    """Ask all questions; results in their order, `tick` after each. The first error stops all and is raised.

    The threads are daemons: Ctrl-C ends the program at once, not after the answers under way.
    """
    waiting = Dispatcher(questions, hosts, slots)
    finished: Finished = queue.SimpleQueue()
    for _ in range(min(slots * len(hosts), len(questions))):
        threading.Thread(target=_work, args=(waiting, ask, finished), daemon=True).start()
    results: dict[int, R] = {}
    try:
        while len(results) < len(questions):
            i, result, error = finished.get()
            if error is not None:
                raise error
            results[i] = result
            tick()
    finally:
        waiting.stop()
    return [results[i] for i in range(len(questions))]


def _work(waiting: Dispatcher[Q], ask: Callable[[Q, Host], Done[R] | Again], finished: Finished) -> None:
    """Put questions until all are answered; an error ends all threads."""
    while (taken := waiting.take()) is not None:
        i, question, host = taken
        outcome: Done[R] | Again = Again()
        try:
            outcome = ask(question, host)
            if isinstance(outcome, Done):
                finished.put((i, outcome.result, None))
        except BaseException as error:
            waiting.stop()
            finished.put((i, None, error))
            return
        finally:
            waiting.give_back(i, host, outcome)
