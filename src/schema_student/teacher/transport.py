"""Carry HTTP to a teacher's server with what clients leave open: a deadline, a size limit, no redirects, typed faults.

Stands under the official ollama client and under the OpenAI-compatible one: both are given a GuardedTransport, which
raises a TeacherFault for everything that is not a whole, well-formed answer of the host that was asked. What passes is
strict JSON, written again in ASCII, because the official client decodes bad UTF-8 without a word and breaks lines at
U+0085 and U+2028, which JSON strings may hold.

    client = ollama.Client(host, transport=GuardedTransport(host, Limits(silence=120, deadline=600, max_bytes=2**23)))
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx

from schema_student.schema.parsing import parse_strict
from schema_student.teacher.budget import Budget, Limits
from schema_student.teacher.faults import (
    HTTP_ERRORS,
    BusyFault,
    EncodingFault,
    RedirectFault,
    ServerFault,
    TeacherFault,
    fault_of_error,
    fault_of_status,
    not_this_api,
    printable,
)
from schema_student.teacher.sockets import BudgetedBackend

CONNECT_SECONDS = 5.0
KEEPALIVE_SECONDS = 60.0
ERROR_BYTES = 64 * 1024  # of the body of an error, as much as is worth reading
JSON_TYPES = ("application/json", "application/x-ndjson", "application/ndjson", "application/jsonl")
LOOPBACK = ("127.0.0.1", "localhost", "0.0.0.0", "::1", "[::1]")

# ---------------------------------------------------------------------------------------------------------------------
# The transport


class _OfThread(threading.local):
    """The budget of the request that this thread waits for; each thread has one at a time."""

    budget: Budget


class GuardedTransport(httpx.BaseTransport):
    """Carries requests to one host within limits; raises TeacherFault for all that is not an answer of it.

    `key` goes to this host alone, whatever the environment holds.
    """

    def __init__(self, host: str, limits: Limits, key: str = "") -> None:
        self.host, self.limits, self._key = host, limits, key
        self._of_thread = _OfThread()
        self._pool = _open_pool(host, BudgetedBackend(lambda: self._of_thread.budget))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry one request and the head of its answer; the body is checked as it is read."""
        self._of_thread.budget = Budget(self.host, self.limits)
        url = request.url
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=self._headers(request),
            content=request.stream,
            extensions={"timeout": {"connect": CONNECT_SECONDS, "read": self.limits.silence, "write": 30.0}},
        )
        with self.typed_errors():
            response = self._pool.handle_request(asked)
        try:
            self._check_head(response)
        except BaseException:
            response.close()
            raise
        body = _Body(self, response, by_lines=url.path.endswith("/api/chat"))
        return httpx.Response(200, headers=[(b"Content-Type", b"application/json")], stream=body)

    def _headers(self, request: httpx.Request) -> list[tuple[bytes, bytes]]:
        dropped = (b"authorization", b"accept-encoding")  # the official client sends its key to every host
        kept = [(name, value) for name, value in request.headers.raw if name.lower() not in dropped]
        key = [(b"Authorization", f"Bearer {self._key}".encode())] if self._key else []
        return [*kept, (b"Accept-Encoding", b"identity"), *key]

    def _check_head(self, response: httpcore.Response) -> None:
        headers = httpx.Headers(response.headers)
        if 300 <= response.status < 400:
            raise RedirectFault(f"{self.host} redirects to {printable(headers.get('location', 'nowhere'))}")
        if response.status != 200:
            fault = fault_of_status(response.status, self.host, self._read_error(response))
            if isinstance(fault, BusyFault):
                fault.retry_after = _retry_after(headers)
            raise fault
        if (encoding := headers.get("content-encoding", "identity")) != "identity":
            raise EncodingFault(f"{self.host} sends its answer as {printable(encoding)}, unasked")
        kind, _, charset = headers.get("content-type", JSON_TYPES[0]).partition(";")
        if kind.strip().lower() not in JSON_TYPES or charset.strip().lower() not in ("", "charset=utf-8"):
            raise not_this_api(self.host, f"it is of type {printable(headers['content-type'])}")

    def _read_error(self, response: httpcore.Response) -> str:
        """What an error says: its `error` where it is JSON, else its first words; "" where it cannot be read."""
        read = b""
        try:
            with self.typed_errors():
                for chunk in response.iter_stream():
                    read += chunk
                    if len(read) > ERROR_BYTES:
                        break
        except TeacherFault:
            pass  # the status is the news; its body may be torn
        text = read[:ERROR_BYTES].decode("utf-8", "replace")
        value, _ = parse_strict(text)
        return self.clean(_error_text(value) if isinstance(value, dict) else text)

    def clean(self, text: str) -> str:
        """Shorten a server's words for a message: one line, without control characters and without the key."""
        return printable(text.replace(self._key, "***") if self._key else text)

    @contextmanager
    def typed_errors(self) -> Iterator[None]:
        """Turn httpcore's errors into faults of this host."""
        try:
            yield
        except HTTP_ERRORS as error:
            raise fault_of_error(error, self.host, self.limits.silence) from None

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer as strict JSON in ASCII, line by line or as one document."""

    def __init__(self, transport: GuardedTransport, response: httpcore.Response, by_lines: bool) -> None:
        self._transport, self._response, self._by_lines = transport, response, by_lines

    def __iter__(self) -> Iterator[bytes]:
        with self._transport.typed_errors():
            for document in self._documents(self._response.iter_stream()):
                if document.strip():
                    yield self._rewrite(document)

    def _documents(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        held = bytearray()
        for chunk in chunks:
            held += chunk
            if self._by_lines and b"\n" in chunk:
                *lines, rest = bytes(held).split(b"\n")
                yield from lines
                held = bytearray(rest)
        yield bytes(held)

    def _rewrite(self, document: bytes) -> bytes:
        """One JSON object in ASCII and a line's end; raises ProtocolFault for any other document."""
        host = self._transport.host
        try:
            text = document.decode()
        except UnicodeDecodeError as error:
            raise not_this_api(host, f"not UTF-8 at byte {error.start}") from None
        value, problem = parse_strict(text)
        if problem:
            raise not_this_api(host, f"not JSON: {printable(problem)}")
        if not isinstance(value, dict):
            raise not_this_api(host, f"a JSON {type(value).__name__} where an object should be")
        if value.get("error"):
            raise ServerFault(f"{host} fails: {self._transport.clean(_error_text(value))}")
        return json.dumps(value).encode() + b"\n"

    def close(self) -> None:
        self._response.close()


# ---------------------------------------------------------------------------------------------------------------------
# Pieces of HTTP


def _open_pool(host: str, backend: httpcore.NetworkBackend) -> httpcore.ConnectionPool:
    """Connections to one host: through the environment's proxy, but for loopback and NO_PROXY."""
    url = httpx.URL(host)
    options: dict[str, Any] = {"max_connections": None, "keepalive_expiry": KEEPALIVE_SECONDS}
    if url.scheme == "https":
        options["ssl_context"] = httpx.create_ssl_context()
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and url.host not in LOOPBACK and not urllib.request.proxy_bypass(url.host):
        options["proxy"] = httpcore.Proxy(proxy if "://" in proxy else f"http://{proxy}")
    return httpcore.ConnectionPool(network_backend=backend, **options)


def _error_text(value: dict[str, Any]) -> str:
    """The words of an error object: Ollama's {"error": text}, OpenAI's {"error": {"message": text}}."""
    error = value.get("error", value.get("message", ""))
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds in a Retry-After header: a number or a date; 0 where there is none that can be read."""
    value = headers.get("retry-after", "").strip()
    try:
        if value.isdecimal():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time()) if value else 0.0
    except (TypeError, ValueError, OverflowError):
        return 0.0
