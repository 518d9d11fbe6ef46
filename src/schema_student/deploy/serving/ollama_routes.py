"""Answer Ollama's routes: /api/chat, /api/generate, /api/tags, /api/show, /api/version, and "/" for its command."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from schema_student import __version__
from schema_student.core.jsonl import Row
from schema_student.deploy.serving.answering import Answering, Begun
from schema_student.deploy.serving.faults import ApiFault
from schema_student.deploy.serving.guarding import read_body
from schema_student.deploy.serving.ollama_requests import LATEST, OllamaChat, OllamaGenerate
from schema_student.deploy.serving.replies import Reply
from schema_student.deploy.serving.requests import parse_body, read_as

NANOSECONDS = 10**9
Asking = OllamaChat | OllamaGenerate
Shape = Callable[[str, Row | None], Row]  # of a text and the call of a tool, what a line says


class Named(BaseModel):
    """The body of /api/show; `name` is what older clients say."""

    model: str = ""
    name: str = ""


class OllamaRoutes:
    """Ollama's API over one student; `facts` are those of its list of models."""

    def __init__(self, name: str, facts: Row, answering: Answering) -> None:
        self.name, self.answering = name, answering
        self.entry = {"name": self._tagged(name), "model": self._tagged(name), "modified_at": _now(), **facts}

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/", self.alive),
            Route("/api/version", self.version),
            Route("/api/tags", self.tags),
            Route("/api/show", self.show, methods=["POST"]),
            Route("/api/chat", partial(self._answer, OllamaChat, _as_message), methods=["POST"]),
            Route("/api/generate", partial(self._answer, OllamaGenerate, _as_response), methods=["POST"]),
        ]

    async def alive(self, request: Request) -> Response:
        """Answer what Ollama's command asks first."""
        return PlainTextResponse("schema-student is running")

    async def version(self, request: Request) -> Response:
        """Say the version of this package."""
        return JSONResponse({"version": __version__})

    async def tags(self, request: Request) -> Response:
        """List the one model that there is."""
        return JSONResponse({"models": [self.entry]})

    async def show(self, request: Request) -> Response:
        """Describe the model."""
        asked = read_as(Named, parse_body(await read_body(request)))
        self._check_model(asked.model or asked.name)
        return JSONResponse(self._description())

    def _description(self) -> Row:
        details, settings = self.entry["details"], self.answering.reader.settings
        family = details["family"]
        info = {"general.architecture": family, "general.basename": self.name}
        info |= {f"{family}.context_length": settings.length.max_seq_length}
        told = {"modelfile": "", "parameters": "temperature 0", "template": "", "license": ""}
        more = {"capabilities": ["completion", "tools"], "modified_at": self.entry["modified_at"]}
        return {**told, "details": details, "model_info": info, **more}

    def _tagged(self, name: str) -> str:
        return name if ":" in name else name + LATEST

    def _check_model(self, name: str) -> None:
        if self._tagged(name) != self.entry["name"]:
            raise ApiFault(404, f"model {name!r} not found; it is {self.name!r}")

    async def _answer(self, kind: type[Asking], shape: Shape, request: Request) -> Response:
        """Answer a request, whole or line by line; one that asks nothing is told that the model is loaded."""
        started = time.monotonic_ns()
        asked = await self.answering.in_thread(_read, kind, await read_body(request))
        self._check_model(asked.model)
        if not asked.asks:
            reason = "unload" if asked.keep_alive == 0 else "load"
            return JSONResponse({**_head(asked), **shape("", None), "done": True, "done_reason": reason})
        begun = await self.answering.begin(asked.as_chat())
        if asked.streams:
            return StreamingResponse(self._stream(asked, shape, begun, started), media_type="application/x-ndjson")
        reply = await self.answering.whole(request, begun)
        said = shape("" if reply.call else reply.text, reply.call)
        return JSONResponse({**_head(asked), **said, **_end(reply, started)})

    async def _stream(self, asked: Asking, shape: Shape, begun: Begun, started: int) -> AsyncIterator[bytes]:
        try:
            async with aclosing(self.answering.pieces(begun)) as pieces:
                async for each in pieces:
                    if isinstance(each, str):
                        yield _line({**_head(asked), **shape(each, None), "done": False})
                        continue
                    if each.call:
                        yield _line({**_head(asked), **shape("", each.call), "done": False})
                    yield _line({**_head(asked), **shape("", None), **_end(each, started)})
        except ApiFault as fault:
            yield _line({"error": fault.message})


def _read(kind: type[Asking], body: bytes) -> Asking:
    return read_as(kind, parse_body(body))


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _head(asked: Asking) -> Row:
    return {"model": asked.model, "created_at": _now()}


def _end(reply: Reply, started: int) -> Row:
    """What the last line of an answer says: why it ended, its counts and times (nanoseconds), and the verdict."""
    total, writing = time.monotonic_ns() - started, int(reply.seconds * NANOSECONDS)
    reason = "length" if reply.reason == "length" else "stop"
    times = {"total_duration": total, "load_duration": 0, "prompt_eval_duration": 0, "eval_duration": writing}
    counts = {"prompt_eval_count": reply.usage["prompt_tokens"], "eval_count": reply.usage["completion_tokens"]}
    return {"done": True, "done_reason": reason, **times, **counts, **reply.judged()}


def _as_message(text: str, call: Row | None) -> Row:
    """An answer, or a call of a tool, of /api/chat: a call's arguments are an object there."""
    if call is None:
        return {"message": {"role": "assistant", "content": text}}
    function = {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
    return {"message": {"role": "assistant", "content": text, "tool_calls": [{"function": function}]}}


def _as_response(text: str, call: Row | None) -> Row:
    """An answer of /api/generate, where there are no tools."""
    return {"response": text}


def _line(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"
