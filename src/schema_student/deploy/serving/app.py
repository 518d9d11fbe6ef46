"""Answer OpenAI's routes: /v1/chat/completions, /v1/models; and /health.

The event loop reads requests and sends answers; one thread prepares prompts and judges answers; the writer's thread
writes them. A client that goes away takes its request with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.deploy.serving.faults import OURS, ApiFault
from schema_student.deploy.serving.guarding import Bounds, Guard, read_body
from schema_student.deploy.serving.replies import LAST, Reply, Writing, fault_event, make_reply
from schema_student.deploy.serving.request_log import RequestLog
from schema_student.deploy.serving.requests import Asked, Chat, ChatReader, read_chat
from schema_student.deploy.serving.writer import Done, Event, Failed, Job, Piece, Writer

OWNER = "schema-student"


class Api:
    """The routes over one student."""

    def __init__(self, name: str, facts: Row, reader: ChatReader, writer: Writer, requests: RequestLog) -> None:
        self.name, self.facts, self.reader, self.writer, self.requests = name, facts, reader, writer, requests
        self._thread = ThreadPoolExecutor(1, "prompts")  # a tokenizer is no two threads' at once
        self._started = int(time.time())

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{model}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        """Say whether answers are written."""
        alive = self.writer.is_alive
        return JSONResponse({"status": "ok" if alive else "the writer has ended"}, 200 if alive else 503)

    async def models(self, request: Request) -> Response:
        """List the one model that there is."""
        return JSONResponse({"object": "list", "data": [self._entry()]})

    async def model(self, request: Request) -> Response:
        """Describe the model."""
        self._check_model(request.path_params["model"])
        return JSONResponse(self._entry())

    def _entry(self) -> Row:
        return {"id": self.name, "object": "model", "created": self._started, "owned_by": OWNER, **self.facts}

    def _check_model(self, name: str) -> None:
        if name != self.name:
            raise ApiFault(
                404, f"there is no model {name!r}; it is {self.name!r}", param="model", code="model_not_found"
            )

    async def chat(self, request: Request) -> Response:
        """Answer a chat, whole or as a stream."""
        chat = await self._in_thread(read_chat, await read_body(request))
        self._check_model(chat.model)
        asked = await self._in_thread(self.reader.read, chat)
        events: asyncio.Queue[Event] = asyncio.Queue()
        job = Job(asked, partial(_emit, asyncio.get_running_loop(), events))
        self.writer.write(job)
        if asked.streams:
            return StreamingResponse(self._stream(job, events, chat), media_type="text/event-stream")
        try:
            reply = await self._wait(request, events, asked)
        finally:
            job.is_unwanted = True
        return JSONResponse(Writing(self.name).whole(reply))

    async def _in_thread(self, function: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *given)

    async def _wait(self, request: Request, events: asyncio.Queue[Event], asked: Asked) -> Reply:
        """Wait for the answer, or for the client to go away."""
        answer = asyncio.ensure_future(self._last(events))
        gone = asyncio.ensure_future(_wait_until_gone(request))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
            return await self._reply(asked, answer.result())
        finally:
            answer.cancel(), gone.cancel()

    async def _last(self, events: asyncio.Queue[Event]) -> Done:
        event = await events.get()
        while isinstance(event, Piece):
            event = await events.get()
        return _done(event)

    async def _reply(self, asked: Asked, done: Done) -> Reply:
        return await self._in_thread(self._judge, asked, done)

    def _judge(self, asked: Asked, done: Done) -> Reply:
        reply = make_reply(asked, done, self.reader.settings.verdict.strip_fences)
        self.requests.add(asked, reply)
        return reply

    async def _stream(self, job: Job, events: asyncio.Queue[Event], chat: Chat) -> AsyncIterator[bytes]:
        """Send an answer as it is written; of a call of a tool the whole at its end."""
        writing, calls = Writing(self.name), bool(job.asked.schema and job.asked.schema.tools)
        try:
            yield writing.begin()
            while isinstance(event := await events.get(), Piece):
                if not calls:
                    yield writing.piece(event.text)
            reply = await self._reply(job.asked, _done(event))
            if calls and reply.call is None:
                yield writing.piece(reply.text)
            for each in writing.end(reply, bool(chat.stream_options and chat.stream_options.include_usage)):
                yield each
        except ApiFault as fault:
            yield fault_event(fault.as_json())
            yield LAST
        finally:
            job.is_unwanted = True


def _emit(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event], event: Event) -> None:
    """Hand an event to whoever waits for it; nobody does once the server has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(events.put_nowait, event)


def _done(event: Event) -> Done:
    if isinstance(event, Failed):
        raise ApiFault(500, f"this request failed: {event.reason}", OURS)
    assert isinstance(event, Done)
    return event


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def build_app(api: Api, bounds: Bounds) -> Guard:
    """Build the app, with its guard before it."""
    handlers: dict[Any, Any] = {ApiFault: _tell, HTTPException: _tell_http, ClientDisconnect: _tell_nobody}
    handlers[Exception] = _tell_bug
    return Guard(Starlette(routes=api.routes(), exception_handlers=handlers), bounds)


async def _tell(_: Request, fault: ApiFault) -> Response:
    return JSONResponse(fault.as_json(), fault.status)


async def _tell_http(request: Request, error: HTTPException) -> Response:
    """What starlette finds itself: a path or a method that there is not."""
    fault = ApiFault(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(fault.as_json(), fault.status, error.headers)


async def _tell_nobody(*_: Any) -> Response:
    """The client has gone, in mid-body or while it was answered."""
    return Response(status_code=499)


async def _tell_bug(request: Request, error: Exception) -> Response:
    log.warning(f"{request.method} {request.url.path} failed: {type(error).__name__}: {error}")
    return JSONResponse(ApiFault(500, f"{type(error).__name__}: {error}", OURS).as_json(), 500)
