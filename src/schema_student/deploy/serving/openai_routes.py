"""Answer OpenAI's routes: /v1/chat/completions and /v1/models."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from schema_student.core.jsonl import Row
from schema_student.deploy.serving.answering import Answering, Begun
from schema_student.deploy.serving.faults import ApiFault
from schema_student.deploy.serving.guarding import read_body
from schema_student.deploy.serving.replies import LAST, Writing, fault_event
from schema_student.deploy.serving.requests import Chat, read_chat

OWNER = "schema-student"


class OpenAIRoutes:
    """OpenAI's API over one student."""

    def __init__(self, name: str, facts: Row, answering: Answering) -> None:
        self.name, self.facts, self.answering = name, facts, answering
        self._started = int(time.time())

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{model}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]

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
        chat = await self.answering.in_thread(read_chat, await read_body(request))
        self._check_model(chat.model)
        begun = await self.answering.begin(chat)
        if chat.stream:
            return StreamingResponse(self._stream(begun, chat), media_type="text/event-stream")
        return JSONResponse(Writing(self.name).whole(await self.answering.whole(request, begun)))

    async def _stream(self, begun: Begun, chat: Chat) -> AsyncIterator[bytes]:
        writing, with_usage = Writing(self.name), bool(chat.stream_options and chat.stream_options.include_usage)
        yield writing.begin()
        try:
            async with aclosing(self.answering.pieces(begun)) as pieces:
                async for each in pieces:
                    for event in [writing.piece(each)] if isinstance(each, str) else writing.end(each, with_usage):
                        yield event
        except ApiFault as fault:
            yield fault_event(fault.as_json())
            yield LAST
