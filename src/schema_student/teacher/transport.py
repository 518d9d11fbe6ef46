"""HTTP to a teacher's server with what clients leave open: a deadline, a size limit, no redirects, typed faults.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx

from schema_student.schema.parsing import parse_strict
from schema_student.teacher.faults import (
    AccessFault,
    BusyFault,
    ConnectFault,
    DeadlineFault,
    EncodingFault,
    MissingFault,
    ProtocolFault,
    RedirectFault,
    RefusalFault,
    ServerFault,
    SilenceFault,
    SizeFault,
    TeacherFault,
    TLSFault,
    TornFault,
)

CONNECT_SECONDS = 5.0
KEEPALIVE_SECONDS = 60.0
ERROR_BYTES = 64 * 1024  # of the body of an error, as much as is worth reading
JSON_TYPES = ("application/json", "application/x-ndjson", "application/ndjson", "application/jsonl")
LOOPBACK = ("127.0.0.1", "localhost", "0.0.0.0", "::1", "[::1]")


# ---------------------------------------------------------------------------------------------------------------------
# The transport


@dataclass(frozen=True)
class Limits:
    """Bounds of one request: seconds without a byte, seconds in all, bytes in all."""

    silence: float
    deadline: float
    max_bytes: int


class _Request(threading.local):
    """What is left to the request that this thread waits for; each thread has one at a time."""

    ends_at = float("inf")
    bytes_left = 0


class GuardedTransport(httpx.BaseTransport):
    """Carries requests to one host within limits; raises TeacherFault for all that is not an answer of it.

    `key` goes to this host alone, whatever the environment holds.
    """

    def __init__(self, host: str, limits: Limits, key: str = "") -> None:
        self.host, self.limits, self._key = host, limits, key
        self._request = _Request()
        self._pool = _pool(host, _Backend(self))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request and the head of its answer; the body is checked as it is read."""
        self._request.ends_at = time.monotonic() + self.limits.deadline
        self._request.bytes_left = self.limits.max_bytes
        url = request.url
        wanted = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=self._headers(request),
            content=request.stream,
            extensions={"timeout": {"connect": CONNECT_SECONDS, "read": self.limits.silence, "write": 30.0}},
        )
        with self._typed():
            response = self._pool.handle_request(wanted)
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
            where = _printable(headers.get("location", "nowhere"))
            advice = "nothing was sent there; if that is your server, name it with --teacher-host"
            raise RedirectFault(f"{self.host} redirects to {where}: {advice}")
        if response.status != 200:
            raise self._status_fault(response, headers)
        if (encoding := headers.get("content-encoding", "identity")) != "identity":
            advice = "have the proxy before it leave answers as they are"
            raise EncodingFault(f"{self.host} sends its answer as {_printable(encoding)}, unasked: {advice}")
        kind, _, charset = headers.get("content-type", JSON_TYPES[0]).partition(";")
        if kind.strip().lower() not in JSON_TYPES or charset.strip().lower() not in ("", "charset=utf-8"):
            raise self.protocol_fault(f"it is of type {_printable(headers['content-type'])}")

    def _status_fault(self, response: httpcore.Response, headers: httpx.Headers) -> TeacherFault:
        status, said = response.status, self._read_error(response)
        what = f"{self.host} answers {status}{f' ({said})' if said else ''}"
        if status in (429, 503):
            advice = "lower --teacher-concurrency, or raise OLLAMA_NUM_PARALLEL and OLLAMA_MAX_QUEUE there"
            return BusyFault(f"{what}: it is busy; {advice}", _retry_after(headers))
        if status in (401, 403):
            return AccessFault(f"{what}: set OLLAMA_API_KEY (OPENAI_API_KEY with --teacher-api openai) for this host")
        if status == 404:
            return MissingFault(f"{what}: check the model's name and --teacher-host")
        if status == 408 or status >= 500:
            return ServerFault(f"{what}: see the server's log")
        if status >= 400:
            return RefusalFault(f"the teacher refuses the question: {what}: see the server's log for what it misses")
        return self.protocol_fault(f"its status is {status}")

    def _read_error(self, response: httpcore.Response) -> str:
        """What an error says: its `error` where it is JSON, else its first words; "" where it cannot be read."""
        read = b""
        try:
            with self._typed():
                for chunk in response.iter_stream():
                    read += chunk
                    if len(read) > ERROR_BYTES:
                        break
        except TeacherFault:
            pass  # the status is the news; its body may be torn
        text = read[:ERROR_BYTES].decode("utf-8", "replace")
        value, _ = parse_strict(text)
        return self.clean(error_text(value) if isinstance(value, dict) else text)

    def clean(self, text: str) -> str:
        """A server's words for a message: one short line, without control characters and without the key."""
        return _printable(text.replace(self._key, "***") if self._key else text)

    def protocol_fault(self, what: str) -> ProtocolFault:
        """A fault for an answer that is not one of this API."""
        advice = "check that --teacher-host and --teacher-api name a model server, not a proxy's page"
        return ProtocolFault(f"{self.host} gave no proper answer ({what}): {advice}")

    @contextmanager
    def _typed(self) -> Iterator[None]:
        """httpcore's errors as ours."""
        try:
            yield
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError) as error:
            said = _printable(str(error)) or "no answer in time"
            if "CERTIFICATE" in said or "SSL" in said:
                advice = "set SSL_CERT_FILE to the certificate of its authority, or use http://"
                raise TLSFault(f"{self.host} cannot be trusted ({said}): {advice}") from None
            raise ConnectFault(
                f"{self.host} does not answer ({said}): start it, or name another --teacher-host"
            ) from None
        except httpcore.ReadTimeout:
            advice = "raise --teacher-timeout if the model is that slow"
            raise SilenceFault(f"{self.host} said nothing for {self.limits.silence:g} s: {advice}") from None
        except httpcore.RemoteProtocolError as error:
            said = _printable(str(error))
            if "disconnected" in said or "closed" in said:
                raise self.torn_fault(said) from None
            raise self.protocol_fault(said) from None
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            raise self.torn_fault(_printable(str(error))) from None
        except httpcore.UnsupportedProtocol as error:
            raise self.protocol_fault(_printable(str(error))) from None

    def torn_fault(self, what: str) -> TornFault:
        """A fault for an answer without its end."""
        advice = "see the server's log; a proxy before it may cut long answers"
        return TornFault(f"{self.host}: the answer is torn ({what or 'no end'}): {advice}")

    def charge(self, timeout: float | None) -> float:
        """Seconds that this thread's request may still wait, at most `timeout`; raises DeadlineFault at its end."""
        left = self._request.ends_at - time.monotonic()
        if left <= 0:
            raise self._late()
        return left if timeout is None else min(timeout, left)

    def _late(self) -> DeadlineFault:
        advice = "raise --teacher-deadline if the model is that slow"
        return DeadlineFault(f"{self.host} had no whole answer after {self.limits.deadline:g} s: {advice}")

    def take(self, count: int) -> None:
        """Count bytes that came; raises SizeFault beyond the limit."""
        self._request.bytes_left -= count
        if self._request.bytes_left < 0:
            advice = "an answer that long is no answer; lower --teacher-num-ctx or change the model"
            raise SizeFault(f"{self.host} sent more than {self.limits.max_bytes} bytes: {advice}")

    def is_late(self) -> bool:
        """Whether this thread's request has used up its time."""
        return time.monotonic() >= self._request.ends_at

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def error_text(value: dict[str, Any]) -> str:
    """The words of an error object: Ollama's {"error": text}, OpenAI's {"error": {"message": text}}."""
    error = value.get("error", value.get("message", ""))
    return str(error.get("message", error) if isinstance(error, dict) else error)


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine."""
    return httpx.URL(host).host in LOOPBACK


def _pool(host: str, backend: httpcore.NetworkBackend) -> httpcore.ConnectionPool:
    """Connections to one host: through the environment's proxy, but for loopback and NO_PROXY."""
    url = httpx.URL(host)
    options: dict[str, Any] = {"max_connections": None, "keepalive_expiry": KEEPALIVE_SECONDS}
    if url.scheme == "https":
        options["ssl_context"] = httpx.create_ssl_context()
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and not is_loopback(host) and not urllib.request.proxy_bypass(url.host):
        options["proxy"] = httpcore.Proxy(proxy if "://" in proxy else f"http://{proxy}")
    return httpcore.ConnectionPool(network_backend=backend, **options)


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds in a Retry-After header: a number or a date; 0 where there is none that can be read."""
    value = headers.get("retry-after", "").strip()
    try:
        if value.isdecimal():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time()) if value else 0.0
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _printable(text: str, limit: int = 300) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 4] + " ..."


# ---------------------------------------------------------------------------------------------------------------------
# Sockets that keep the time, and bodies that are JSON


class _Stream(httpcore.NetworkStream):
    """A socket whose every wait ends at the deadline of the request, also between the bytes of a header.

    What is written is sent when something is to be read: head and body leave in one packet, not in three.
    """

    def __init__(self, inner: httpcore.NetworkStream, guard: GuardedTransport) -> None:
        self._inner, self._guard, self._held = inner, guard, b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        held, self._held = self._held, b""
        if held:
            # A server that refuses a question early closes before it has read all: its answer is still to be read.
            with suppress(httpcore.WriteError):
                self._wait(lambda seconds: self._inner.write(held, seconds), timeout)
        data = self._wait(lambda seconds: self._inner.read(max_bytes, seconds), timeout)
        self._guard.take(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._held += buffer

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        secured = self._wait(lambda seconds: self._inner.start_tls(ssl_context, server_hostname, seconds), timeout)
        return _Stream(secured, self._guard)

    def _wait(self, action: Callable[[float], Any], timeout: float | None) -> Any:
        try:
            return action(self._guard.charge(timeout))
        except httpcore.TimeoutException:
            self._guard.charge(timeout)  # the deadline, if it was that
            raise

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Makes such sockets."""

    def __init__(self, guard: GuardedTransport) -> None:
        self._guard = guard
        self._inner = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:  # type: ignore[override]
        return _Stream(self._inner.connect_tcp(host, port, self._guard.charge(timeout), **options), self._guard)


class _Body(httpx.SyncByteStream):
    """The body of an answer as strict JSON in ASCII, line by line or as one document."""

    def __init__(self, guard: GuardedTransport, response: httpcore.Response, by_lines: bool) -> None:
        self._guard, self._response, self._by_lines = guard, response, by_lines

    def __iter__(self) -> Iterator[bytes]:
        with self._guard._typed():
            for document in self._documents(self._response.iter_stream()):
                if document.strip():
                    yield self._checked(document)

    def _documents(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        held = bytearray()
        for chunk in chunks:
            held += chunk
            if self._by_lines and b"\n" in chunk:
                *lines, rest = bytes(held).split(b"\n")
                yield from lines
                held = bytearray(rest)
        yield bytes(held)

    def _checked(self, document: bytes) -> bytes:
        try:
            text = document.decode()
        except UnicodeDecodeError as error:
            raise self._guard.protocol_fault(f"not UTF-8 at byte {error.start}") from None
        value, problem = parse_strict(text)
        if problem:
            raise self._guard.protocol_fault(f"not JSON: {_printable(problem)}")
        if not isinstance(value, dict):
            raise self._guard.protocol_fault(f"a JSON {type(value).__name__} where an object should be")
        if value.get("error"):
            raise ServerFault(f"{self._guard.host} fails: {self._guard.clean(error_text(value))}: see the server's log")
        return json.dumps(value).encode() + b"\n"

    def close(self) -> None:
        self._response.close()
