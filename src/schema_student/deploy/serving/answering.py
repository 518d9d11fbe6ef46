"""Take a request from its reading to the judged answer, whole or in pieces: what the routes of each API call.

The event loop reads requests and sends answers; one thread prepares prompts and judges answers; the writer's thread
writes them. A client that goes away takes its request with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from schema_student.deploy.serving.deferring import Deferring
from schema_student.deploy.serving.faults import OURS, ApiFault
from schema_student.deploy.serving.replies import Reply, make_reply
from schema_student.deploy.serving.request_log import RequestLog
from schema_student.deploy.serving.requests import Asked, Chat, ChatReader
from schema_student.deploy.serving.writer import Done, Event, Failed, Job, Piece, Writer

T = TypeVar("T")


@dataclass(frozen=True)
class Begun:
    """A request that is being answered, and what happens to it."""

    job: Job
    events: asyncio.Queue[Event]

    @property
    def asked(self) -> Asked:
        """Return what is asked."""
        return self.job.asked


class Answering:
    """One student, which answers the requests of all routes."""

    def __init__(
        self, reader: ChatReader, writer: Writer, requests: RequestLog, deferring: Deferring | None = None
    ) -> None:
        self.reader, self.writer, self.requests, self.deferring = reader, writer, requests, deferring
        self._thread = ThreadPoolExecutor(1, "prompts")  # a tokenizer is no two threads' at once

    async def in_thread(self, function: Callable[..., T], *given: Any) -> T:
        """Call a function in the thread that prepares prompts."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *given))

    async def begin(self, chat: Chat) -> Begun:
        """Let a request be answered; raises ApiFault for one that cannot be."""
        asked = await self.in_thread(self.reader.read, chat)
        events: asyncio.Queue[Event] = asyncio.Queue()
        job = Job(asked, partial(_emit, asyncio.get_running_loop(), events))
        self.writer.write(job)
        return Begun(job, events)

    async def whole(self, request: Request, begun: Begun) -> Reply:
        """Wait for the answer, or for the client to go away; raises ApiFault, ClientDisconnect."""
        answer = asyncio.ensure_future(_last(begun.events))
        gone = asyncio.ensure_future(_wait_until_gone(request))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
            return await self._settle(begun.asked, answer.result())
        finally:
            begun.job.is_unwanted = True
            answer.cancel(), gone.cancel()

    async def pieces(self, begun: Begun) -> AsyncGenerator[str | Reply, None]:
        """Give an answer as it is written, and at its end the whole of it, judged; raises ApiFault.

        Of what may be the call of a tool, or a teacher's answer, there is nothing before its end.
        """
        schema = begun.asked.schema
        held = schema is not None and (bool(schema.tools) or self.deferring is not None)
        try:
            while isinstance(event := await begun.events.get(), Piece):
                if not held:
                    yield event.text
            reply = await self._settle(begun.asked, _done(event))
            if held and reply.call is None:
                yield reply.text
            yield reply
        finally:
            begun.job.is_unwanted = True

    async def _settle(self, asked: Asked, done: Done) -> Reply:
        """Judge an answer; where a teacher stands behind the student, let it answer what that is not sure of."""
        reply = await self.in_thread(self._judge, asked, done)
        return await self.deferring.settle(asked, done, reply) if self.deferring else reply

    def _judge(self, asked: Asked, done: Done) -> Reply:
        reply = make_reply(asked, done, self.reader.settings.verdict.strip_fences)
        self.requests.add(asked, reply)
        return reply


def _emit(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event], event: Event) -> None:
    """Hand an event to whoever waits for it; nobody does once the server has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(events.put_nowait, event)


async def _last(events: asyncio.Queue[Event]) -> Done:
    while isinstance(event := await events.get(), Piece):
        pass
    return _done(event)


def _done(event: Event) -> Done:
    if isinstance(event, Failed):
        raise ApiFault(500, f"this request failed: {event.reason}", OURS)
    assert isinstance(event, Done)
    return event


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
