"""Serve Ollama's HTTP API on a loopback port; what answers is rules, no language model, and says so.

It stands before the teacher client, which starts it where no Ollama is. It keeps no state: what it knows is a function
of what it is asked, so that a restart or another process gives the same answers.

Only who has its token is answered (guarding.py):

    with serve() as address:
        client = ollama.Client(address.url, headers={"Authorization": address.authorization})
        client.chat("embedded-teacher", role_messages("query", payload))
"""

from __future__ import annotations

import io
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

from schema_student import __version__
from schema_student.teacher.addresses import Address
from schema_student.teacher.embedded.guarding import (
    CLIENT_SECONDS,
    STRANGER_SECONDS,
    GuardedServer,
    Refused,
    TimedReader,
    body_length,
    check_caller,
)
from schema_student.teacher.embedded.identity import DISPLAY_NAME, MODEL, model_digest
from schema_student.teacher.embedded.replies import reply

# ---------------------------------------------------------------------------------------------------------------------
# HTTP


@contextmanager
def serve() -> Iterator[Address]:
    """Serve on a free loopback port in a thread; yields the address, which holds the token that it wants."""
    token = secrets.token_urlsafe(32)
    server = GuardedServer(_Handler, token)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Address(f"http://127.0.0.1:{server.server_address[1]}", f"Bearer {token}", (token,))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: GuardedServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet

    def setup(self) -> None:
        super().setup()
        self._reader = TimedReader(self.connection)
        self.rfile.close()
        self.rfile = io.BufferedReader(self._reader)
        self._wait(STRANGER_SECONDS)

    def _wait(self, seconds: float) -> None:
        """Give the next request so many seconds to come."""
        self._reader.deadline = time.monotonic() + seconds

    def do_GET(self) -> None:
        self._route({"/": _hello, "/api/version": _version, "/api/tags": _tags, "/api/ps": _tags})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._route({"/api/chat": _chat, "/api/generate": _generate, "/api/show": _show})

    def _route(self, routes: dict[str, Callable[[dict[str, Any]], Any]]) -> None:
        try:
            length = self._check()
        except Refused as error:
            self.close_connection = True  # its body stays unread
            return self._send(error.args[0], {"error": error.args[1]})
        try:
            body = self._body(length)
            answer = routes.get(self.path.partition("?")[0], _not_found)(body)
        except Refused as error:
            self._send(error.args[0], {"error": error.args[1]})
        except TimeoutError:
            raise
        except Exception as error:  # the client's to see: a server thread has nobody to raise to
            self._send(500, {"error": f"{type(error).__name__}: {error}"})
        else:
            self._send(200, answer)

    def _check(self) -> int:
        """Check who asks, and how long the body is, before any of it is read; raises Refused."""
        check_caller(self.headers, self.server.server_address[1], self.server.token)
        length = body_length(self.headers)
        self.server.trust(self.connection)
        self._wait(CLIENT_SECONDS)
        return length

    def _body(self, length: int) -> dict[str, Any]:
        raw = self.rfile.read(length)
        try:
            body = json.loads(raw) if raw else {}
        except ValueError as error:
            raise Refused(400, f"invalid JSON: {error}") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body must be a JSON object")
        return body

    def _send(self, status: int, answer: Any) -> None:
        """A dict as JSON, a str as text, a list as NDJSON in chunks."""
        parts = [json.dumps(part).encode() + b"\n" for part in answer] if isinstance(answer, list) else []
        body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        kind = "application/x-ndjson" if parts else "text/plain" if isinstance(answer, str) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header(*(("Transfer-Encoding", "chunked") if parts else ("Content-Length", str(len(body)))))
        self.end_headers()
        if self.command == "HEAD":
            return
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        self.wfile.write(chunks + b"0\r\n\r\n" if parts else body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests are counted by the client."""


# ---------------------------------------------------------------------------------------------------------------------
# Ollama's routes: body -> answer


def _not_found(_: dict[str, Any]) -> Any:
    raise Refused(404, "404 page not found")


def _hello(_: dict[str, Any]) -> str:
    return "Ollama is running"


def _version(_: dict[str, Any]) -> dict[str, Any]:
    return {"version": f"{__version__}-embedded"}


def _details() -> dict[str, Any]:
    return {
        "format": "rules",
        "family": "embedded",
        "families": ["embedded"],
        "parameter_size": "0",
        "quantization_level": "none",
    }


def _tags(_: dict[str, Any]) -> dict[str, Any]:
    model = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "modified_at": _now(), "size": 0}
    return {"models": [{**model, "digest": model_digest(), "details": _details()}]}


def _show(body: dict[str, Any]) -> dict[str, Any]:
    _check_model(body)
    info = {"general.architecture": "embedded", "general.parameter_count": 0}
    shown = {"modelfile": f"# {DISPLAY_NAME}", "template": "{{ .Prompt }}", "details": _details(), "model_info": info}
    return {**shown, "capabilities": ["completion"], "modified_at": _now()}


def _chat(body: dict[str, Any]) -> Any:
    def part(text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    messages = body.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refused(400, "messages must be a list of objects")
    return _answer(body, messages, part)


def _generate(body: dict[str, Any]) -> Any:
    def part(text: str) -> dict[str, Any]:
        return {"response": text}

    prompt = body.get("prompt") or ""
    return _answer(body, [{"role": "user", "content": prompt}] if prompt else [], part)


def _answer(body: dict[str, Any], messages: list[dict[str, Any]], part: Callable[[str], dict[str, Any]]) -> Any:
    """The answer as Ollama sends it: one object, or with `stream` (its default) several, the counts in the last."""
    _check_model(body)
    _check_format(body)
    head = {"model": body["model"], "created_at": _now()}
    words, reason = _say(body, messages)
    read = sum(len(str(message.get("content", ""))) for message in messages) // 4
    counts = {"total_duration": 1, "load_duration": 0, "prompt_eval_count": read, "prompt_eval_duration": 0}
    last = {"done": True, "done_reason": reason, **counts, "eval_count": len(words), "eval_duration": 0}
    if not body.get("stream", True):
        return {**head, **part("".join(words)), **last}
    third = max(1, -(-len(words) // 3))
    pieces = ["".join(words[i : i + third]) for i in range(0, len(words), third)]
    return [{**head, **part(piece), "done": False} for piece in pieces] + [{**head, **part(""), **last}]


def _say(body: dict[str, Any], messages: list[dict[str, Any]]) -> tuple[list[str], str]:
    """The reply as so many "tokens" of a few characters, num_predict at most, and the reason of its end."""
    if not messages:
        return [], "load"
    words = re.findall(r"\s*\S{1,6}", reply(messages, body.get("format")))
    limit = (body.get("options") or {}).get("num_predict")
    if isinstance(limit, int) and 0 <= limit < len(words):
        return words[:limit], "length"
    return words, "stop"


def _check_model(body: dict[str, Any]) -> None:
    model = body.get("model") or body.get("name")
    if not model or not isinstance(model, str):
        raise Refused(400, "model is required")
    if model.removesuffix(":latest") != MODEL:
        raise Refused(404, f"model '{model}' not found")
    if body.get("think"):
        raise Refused(400, f'"{model}" does not support thinking')


def _check_format(body: dict[str, Any]) -> None:
    wanted = body.get("format")
    if wanted not in (None, "", "json") and not isinstance(wanted, dict):
        raise Refused(400, f'invalid format: {json.dumps(wanted)}; expected "json" or a valid JSON Schema object')


def _now() -> str:
    return datetime.now(UTC).isoformat()
