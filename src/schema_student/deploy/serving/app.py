"""Bring the routes of all APIs together: OpenAI's, Ollama's, and /health; tell faults in the words of each."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from schema_student.core.log import log
from schema_student.deploy.serving.answering import Answering
from schema_student.deploy.serving.faults import OURS, ApiFault, fault_body
from schema_student.deploy.serving.guarding import Bounds, Guard
from schema_student.deploy.serving.ollama_routes import OllamaRoutes
from schema_student.deploy.serving.openai_routes import OpenAIRoutes


def build_app(answering: Answering, openai: OpenAIRoutes, ollama: OllamaRoutes, bounds: Bounds) -> Guard:
    """Build the app, with its guard before it."""

    async def health(request: Request) -> Response:
        alive = answering.writer.is_alive
        counts = answering.deferring.counts if answering.deferring else {}
        return JSONResponse({"status": "ok" if alive else "the writer has ended", **counts}, 200 if alive else 503)

    routes = [Route("/health", health), *openai.routes(), *ollama.routes()]
    handlers: dict[Any, Any] = {ApiFault: _tell, HTTPException: _tell_http, ClientDisconnect: _tell_nobody}
    handlers[Exception] = _tell_bug
    return Guard(Starlette(routes=routes, exception_handlers=handlers), bounds)


async def _tell(request: Request, fault: ApiFault) -> Response:
    return JSONResponse(fault_body(fault, request.url.path), fault.status)


async def _tell_http(request: Request, error: HTTPException) -> Response:
    """What starlette finds itself: a path or a method that there is not."""
    fault = ApiFault(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(fault_body(fault, request.url.path), fault.status, error.headers)


async def _tell_nobody(*_: Any) -> Response:
    """The client has gone, in mid-body or while it was answered."""
    return Response(status_code=499)


async def _tell_bug(request: Request, error: Exception) -> Response:
    log.warning(f"{request.method} {request.url.path} failed: {type(error).__name__}: {error}")
    return JSONResponse(fault_body(ApiFault(500, f"{type(error).__name__}: {error}", OURS), request.url.path), 500)
