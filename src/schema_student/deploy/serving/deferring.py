"""Let a teacher answer what a served student is not sure of; a thread of its own asks it, what waits at once.

with Deferring(deferral) as deferring:
    reply = await deferring.settle(asked, done, reply)      # says who answered, and how sure the student was
    deferring.counts                                        # {"answered": 9, "deferred": 2, "teacher_failed": 1}
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from schema_student.deploy.serving.replies import Reply, make_reply
from schema_student.deploy.serving.requests import Asked
from schema_student.deploy.serving.writer import Done
from schema_student.evaluation.deferral import STUDENT, Deferral
from schema_student.student.ask import Answer, Question

Waiting = tuple[Question, "Future[Answer]"]
COUNTED = ("answered", "deferred", "teacher_failed")


class Deferring:
    """The thread that asks the teacher, and counts of what it was asked."""

    def __init__(self, deferral: Deferral) -> None:
        self.deferral = deferral
        self._counts: Counter[str] = Counter()
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="teacher", daemon=True)

    def __enter__(self) -> Deferring:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._waiting.put(None)

    @property
    def counts(self) -> dict[str, int]:
        """Return how many requests to a schema were answered, how many by the teacher, and how often it failed."""
        return {name: self._counts[name] for name in COUNTED}

    async def settle(self, asked: Asked, done: Done, reply: Reply) -> Reply:
        """Say the confidence of a reply to a schema, and put the teacher's answer in its place where it is too low."""
        if asked.schema is None:
            return reply
        sure = 0.0 if done.log_p is None or not reply.valid else self.deferral.calibration.confidence(done.log_p)
        own = replace(reply, told={"by": STUDENT, "confidence": sure})
        self._counts["answered"] += 1
        if sure >= self.deferral.below:
            return own
        if not asked.is_alone:
            return replace(own, told={**own.told, "warning": "not deferred: a teacher is asked about one turn alone"})
        self._counts["deferred"] += 1
        answer = await self._ask(Question(asked.schema.compiled, asked.query, asked.day))
        if not answer.valid:
            self._counts["teacher_failed"] += 1
            return replace(own, told={**own.told, "warning": self.deferral.warn(answer)})
        theirs = make_reply(asked, replace(done, text=answer.text, finished=True), strip_fences=False)
        return replace(theirs, usage=reply.usage, told={"by": self.deferral.teacher, "confidence": sure})

    async def _ask(self, question: Question) -> Answer:
        future: Future[Answer] = Future()
        self._waiting.put((question, future))
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            some = [first]
            while not self._waiting.empty() and (more := self._waiting.get()) is not None:
                some.append(more)
            self._answer([(question, future) for question, future in some if future.set_running_or_notify_cancel()])

    def _answer(self, some: list[Waiting]) -> None:
        """Ask about all that waits; whatever goes wrong is told to each who waits."""
        try:
            answers = self.deferral.ask([question for question, _ in some])
        except Exception as error:  # the thread goes on: later requests may be answered
            for _, future in some:
                future.set_result(Answer(None, False, (), "", 0, 0.0, f"{type(error).__name__}: {error}"))
            return
        for (_, future), answer in zip(some, answers, strict=True):
            future.set_result(answer)
