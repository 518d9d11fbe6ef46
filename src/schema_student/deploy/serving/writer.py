"""Write all answers in one thread that owns the model: requests that come while others are answered join them.

A request that makes the model fail is answered with that fault; those beside it are begun again, each alone, so that
it is found which one that is.

    with Writer(student, slots=8) as writer:
        writer.write(job)         # job.emit is called, in this thread, with what happens: Piece, Done, Failed
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from schema_student.core.log import log
from schema_student.deploy.serving.requests import Asked
from schema_student.student.decoding import Decoder, Row, Written, ready_to_decode
from schema_student.student.generation import find_stop_ids
from schema_student.student.kept_prompts import KeptPrompts
from schema_student.student.loading import Student

UNFINISHED, MOST_HALVES = "\ufffd", 3  # what a tokenizer makes of the first bytes of a character, and how many


@dataclass(frozen=True)
class Piece:
    """Further text of an answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """The whole answer; `finished`: it ended by itself, or at a text of `stop`, not at the limit.

    `mask_changes` counts the tokens that a constraint refused, and another one was written.
    """

    text: str
    tokens: int
    finished: bool
    seconds: float
    mask_changes: int = 0
    log_p: float | None = None  # nats, of all that was written; None where it is not measured


@dataclass(frozen=True)
class Failed:
    """There is no answer, because of this."""

    reason: str


Event = Piece | Done | Failed


@dataclass(eq=False)
class Job:
    """A request that is answered: `emit` takes what happens to it."""

    asked: Asked
    emit: Callable[[Event], None]
    is_unwanted: bool = False  # nobody waits for its answer any more
    sent: int = 0  # characters that were emitted
    written: Written | None = field(default=None, repr=False)


class Writer:
    """The thread, and the requests that wait for it."""

    def __init__(self, student: Student, slots: int, measures: bool = False) -> None:
        self.student, self.slots = student, slots
        self._others_below = 0.0 if measures else None  # of the probabilities that are measured no other is looked for
        self._stop_ids = find_stop_ids(student)
        self._kept = KeptPrompts()
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._stopping = False

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stopping = True
        self._waiting.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether answers are written."""
        return self._thread.is_alive()

    def write(self, job: Job) -> None:
        """Let a request wait for its turn."""
        self._waiting.put(job)

    def _run(self) -> None:
        with ready_to_decode(self.student.model):
            self._decoder = self._make_decoder()
            while not self._stopping:
                self._write_together(self._take(block=True))

    def _take(self, block: bool) -> list[Job]:
        """Take the requests that wait, those of one schema beside each other; with `block` there is at least one."""
        jobs = []
        while block or not self._waiting.empty():
            job, block = self._waiting.get(), False
            if job is None:
                break
            jobs.append(job)
        return sorted((job for job in jobs if not job.is_unwanted), key=lambda job: job.asked.prompt_ids)

    def _write_together(self, jobs: list[Job], joined: bool = True) -> None:
        """Write to the end of these requests and, where they may be `joined`, of all that come meanwhile."""
        decoder, jobs = self._decoder, list(jobs)
        try:
            for job in jobs:
                _start(job, decoder)
            while jobs and not self._stopping:
                if decoder.is_busy:
                    decoder.step()
                jobs = [job for job in jobs if self._goes_on(job, decoder)]
                if joined:
                    more = self._take(block=False)
                    jobs += more
                    for job in more:
                        _start(job, decoder)
        except Exception as error:  # of the model, or of a grammar: whoever asked is told
            self._write_apart(jobs, error)

    def _make_decoder(self) -> Decoder:
        longest = self.student.settings.generation.max_new_tokens
        return Decoder(
            self.student.model, self._stop_ids, longest, self.slots, 0.0, None, self._kept, self._others_below
        )

    def _write_apart(self, jobs: list[Job], error: Exception) -> None:
        """Answer the one request that failed with its fault; begin several again, one by one."""
        self._kept = KeptPrompts()
        self._decoder = self._make_decoder()
        if len(jobs) == 1:
            log.warning(f"a request failed: {type(error).__name__}: {error}")
            jobs[0].emit(Failed(f"{type(error).__name__}: {error}"))
            return
        for job in jobs:
            job.written = None
            self._write_together([job], joined=False)

    def _goes_on(self, job: Job, decoder: Decoder) -> bool:
        """Say what was written of an answer; returns whether more is to come."""
        assert job.written is not None
        if job.is_unwanted:
            decoder.drop(job.written)
            return False
        if not (job.written.has_ended or job.asked.streams or job.asked.stops):
            return True
        text, stopped = self._read(job.written, job.asked.stops)
        if job.written.has_ended or stopped:
            decoder.drop(job.written)
            self._end(job, text, stopped)
            return False
        if job.asked.streams:
            _send(job, text[: len(text) - held_back(text, job.asked.stops)])
        return True

    def _read(self, written: Written, stops: Iterable[str]) -> tuple[str, bool]:
        """The text that was written, up to the first text that ends it, and whether there is one."""
        ids = written.ids[:-1] if written.ids[-1:] and written.ids[-1] in self._stop_ids else written.ids
        text = str(self.student.tokenizer.decode(ids, skip_special_tokens=True))
        ends = [place for stop in stops if (place := text.find(stop)) >= 0]
        return (text[: min(ends)], True) if ends else (text, False)

    def _end(self, job: Job, text: str, stopped: bool) -> None:
        assert job.written is not None
        ids, guide = job.written.ids, job.written.guide
        if job.asked.streams:
            _send(job, text)
        finished = stopped or ids[-1] in self._stop_ids
        chances, changed = job.written.chances, guide.changed if guide else 0
        log_p = math.fsum(chance.logp for chance in chances) if chances else None
        job.emit(Done(text, len(ids), finished, job.written.seconds, changed, log_p))


def _start(job: Job, decoder: Decoder) -> None:
    asked = job.asked
    row = Row(asked.prompt_ids, asked.seed, asked.constraint, asked.max_new_tokens, asked.temperature)
    job.written = decoder.add(row)


def _send(job: Job, text: str) -> None:
    """Emit what of a text was not emitted yet."""
    if len(text) > job.sent:
        job.emit(Piece(text[job.sent :]))
        job.sent = len(text)


def held_back(text: str, stops: Iterable[str]) -> int:
    """Count the last characters that are held back: they may be half a character, or begin a text that ends an answer.

    >>> held_back("one EN", ["END"])
    2
    """
    halves = min(len(text) - len(text.rstrip(UNFINISHED)), MOST_HALVES)
    return max([halves, *_begun(text, stops)])


def _begun(text: str, stops: Iterable[str]) -> Iterator[int]:
    for stop in stops:
        yield next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
