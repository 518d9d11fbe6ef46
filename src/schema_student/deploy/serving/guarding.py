"""Guard the server: whom it answers, how much it reads, how long it waits for slow clients.

Loopback is open to every web page of the machine. A page is told by its Origin, or, where it has its name resolved to
127.0.0.1 (DNS rebinding), by the Host that it asks for. Who else may ask, a key says.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from schema_student.deploy.serving.faults import BUSY, KEY, OURS, ApiFault, fault_body

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BODY_BYTES = 4 * 2**20
BODIES_BYTES = 128 * 2**20  # of all requests that are being answered
HEAD_BYTES = 64 * 2**10
HEAD_SECONDS = 10.0  # that a connection may take to send the head of a request, and to be silent between two
BODY_SECONDS = 30.0  # that a body may take to come
ADVICE = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}  # headers of a refusal
Send = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class Bounds:
    """Who may ask and how much at once: where the server listens, the key ("": none), requests, seconds of one."""

    host: str
    port: int
    key: str = ""
    requests: int = 2048
    seconds: float = 300.0

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine reaches the server."""
        return self.host in LOOPBACK


class Guard:
    """Stands before the app: refuses strangers, counts requests, and ends those that take too long."""

    def __init__(self, app: Any, bounds: Bounds) -> None:
        self.app, self.bounds = app, bounds
        self._requests = self._bytes = 0  # that are being answered, and what their bodies hold

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        length = _declared_length(Request(scope))
        self._requests, self._bytes = self._requests + 1, self._bytes + length
        try:
            check_caller(Request(scope), self.bounds)
            self._check_load()
            async with asyncio.timeout(self.bounds.seconds):
                await self.app(scope, receive, send_and_note)
        except (ApiFault, TimeoutError) as error:
            if begun:
                raise ConnectionAbortedError("too slow, in mid-answer") from None  # the connection is closed
            late = ApiFault(504, f"there was no answer in {self.bounds.seconds:g} s", OURS, code="timeout")
            refusal = _refusal(error if isinstance(error, ApiFault) else late, scope["path"])
            await refusal(scope, receive, send)
        finally:
            self._requests, self._bytes = self._requests - 1, self._bytes - length

    def _check_load(self) -> None:
        if self._requests > self.bounds.requests or self._bytes > BODIES_BYTES:
            said = f"{self._requests - 1} requests are being answered: try again"
            raise ApiFault(429, said, BUSY, code="busy")


def _refusal(fault: ApiFault, path: str) -> JSONResponse:
    return JSONResponse(fault_body(fault, path), fault.status, ADVICE.get(fault.status))


def check_caller(request: Request, bounds: Bounds) -> None:
    """Check that no web page asks, and that who asks has the key; raises ApiFault."""
    if request.headers.getlist("origin"):
        raise ApiFault(403, "no web page may ask", KEY, code="forbidden")
    hosts = [host.casefold() for host in request.headers.getlist("host")]
    own = {f"{name}:{bounds.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    if bounds.is_loopback and (len(hosts) != 1 or hosts[0] not in own):
        raise ApiFault(403, "the Host must be this machine's own", KEY, code="forbidden")
    given = request.headers.getlist("authorization")
    if bounds.key and request.url.path != "/health" and not _is_key(given, bounds.key):
        raise ApiFault(401, "the key is missing or wrong: Authorization: Bearer KEY", KEY, code="invalid_api_key")


def _is_key(given: list[str], key: str) -> bool:
    return len(given) == 1 and hmac.compare_digest(given[0].encode("utf-8", "replace"), f"Bearer {key}".encode())


def _declared_length(request: Request) -> int:
    """The length of a body by its head, the longest that is read where it does not say it."""
    length = request.headers.get("content-length", "")
    chunked = "transfer-encoding" in request.headers
    return min(int(length), 2 * BODY_BYTES) if length.isdecimal() else BODY_BYTES if chunked else 0


async def read_body(request: Request) -> bytes:
    """Read a body; raises ApiFault for one that is too long or too slow."""
    body = bytearray()
    _check_length(_declared_length(request))
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                _check_length(len(body))
    except TimeoutError:
        raise ApiFault(408, f"the body did not come in {BODY_SECONDS:g} s", code="timeout") from None
    return bytes(body)


def _check_length(length: int) -> None:
    if length > BODY_BYTES:
        raise ApiFault(413, f"the body is longer than {BODY_BYTES} bytes", code="too_large")


class ImpatientProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, closing a connection on which the head of a request does not come."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait(HEAD_SECONDS, self._look_again)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._timer.cancel()
        self._wait(HEAD_SECONDS, self._look_again)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(seconds, then)

    def _look_again(self) -> None:
        """Give what has come meanwhile the time to be read: where the loop was busy, it may wait in the socket."""
        self._wait(HEAD_SECONDS / 10, self._close_if_silent)

    def _close_if_silent(self) -> None:
        """Close it, unless a request is being answered; a head that has come in part is none."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)
