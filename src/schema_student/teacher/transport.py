"""Carry HTTP to a teacher's server with what clients leave open: a deadline, a size limit, no redirects, typed faults.

Stands under the official ollama client and under the OpenAI-compatible one: both are given a GuardedTransport, which
raises a TeacherFault for everything that is not a whole, well-formed answer of the host that was asked. What passes is
strict JSON, written again in ASCII, because the official client decodes bad UTF-8 without a word and breaks lines at
U+0085 and U+2028, which JSON strings may hold.

    (address,) = find_addresses("ollama", ["http://gpu:11434"])
    transport = GuardedTransport(address, Limits(silence=120, deadline=600, max_bytes=2**23))
    client = ollama.Client(address.url, transport=transport, trust_env=False)
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx

from schema_student.core.cleaning import hide_secrets, hide_userinfo, one_line
from schema_student.schema.parsing import parse_strict
from schema_student.teacher.addresses import Address
from schema_student.teacher.budget import Budget, Limits
from schema_student.teacher.faults import (
    HTTP_ERRORS,
    BusyFault,
    EncodingFault,
    RedirectFault,
    ServerFault,
    TeacherError,
    TeacherFault,
    fault_of_error,
    fault_of_status,
    not_this_api,
)
from schema_student.teacher.proxies import Proxy, find_proxy
from schema_student.teacher.sockets import BudgetedBackend

CONNECT_SECONDS = 5.0
KEEPALIVE_SECONDS = 60.0
ERROR_BYTES = 64 * 1024  # of the body of an error, as much as is worth reading
EVENTS = "text/event-stream"  # of servers that stream unasked
# What is no JSON in spite of its type is refused when it is read.
JSON_TYPES = (
    "application/json",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "text/plain",
    EVENTS,
)
TELLING = 8  # characters of a secret that no answer has by chance: it is hidden in answers, too

# ---------------------------------------------------------------------------------------------------------------------
# The transport


class _OfThread(threading.local):
    """The budget of the request that this thread waits for; each thread has one at a time."""

    budget: Budget


class GuardedTransport(httpx.BaseTransport):
    """Carries requests to one host within limits; raises TeacherFault for all that is not an answer of it.

    The address's key or password goes to its host alone, whatever the environment holds, and is hidden wherever the
    server repeats it. `place` is what messages call the host: its URL, and the proxy before it.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        self.host, self.limits, self._address = address.url, limits, address
        self._of_thread = _OfThread()
        url = httpx.URL(address.url)
        self._proxy = find_proxy(url)
        self.place = f"{self.host} (through the proxy {self._proxy.url})" if self._proxy else self.host
        self._pool = _open_pool(url, self._proxy, BudgetedBackend(lambda: self._of_thread.budget))

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
        is_events = _content_type(response) == EVENTS
        body = _Body(self, response, by_lines=is_events or url.path.endswith("/api/chat"), is_events=is_events)
        return httpx.Response(200, headers=[(b"Content-Type", b"application/json")], stream=body)

    def _headers(self, request: httpx.Request) -> list[tuple[bytes, bytes]]:
        dropped = (b"authorization", b"accept-encoding")  # the official client sends its key to every host
        kept = [(name, value) for name, value in request.headers.raw if name.lower() not in dropped]
        own = [(b"Authorization", self._address.authorization.encode())] if self._address.authorization else []
        return [*kept, (b"Accept-Encoding", b"identity"), *own]

    def _check_head(self, response: httpcore.Response) -> None:
        headers = httpx.Headers(response.headers)
        if 300 <= response.status < 400:
            raise RedirectFault(f"{self.place} redirects to {self._destination(headers)}")
        if response.status != 200:
            fault = fault_of_status(response.status, self.place, self._read_error(response))
            if isinstance(fault, BusyFault):
                fault.retry_after = _retry_after(headers)
            raise fault
        if (encoding := headers.get("content-encoding", "identity")) != "identity":
            raise EncodingFault(f"{self.place} sends its answer as {self.clean(encoding)}, unasked")
        charset = headers.get("content-type", "").partition(";")[2]
        if _content_type(response) not in JSON_TYPES or charset.strip().lower() not in ("", "charset=utf-8"):
            raise not_this_api(self.place, f"it is of type {self.clean(headers['content-type'])}")

    def _destination(self, headers: httpx.Headers) -> str:
        """Where a redirect leads, without what may be a secret in it: user, password, query."""
        location = headers.get("location", "nowhere")
        return self.clean(hide_userinfo(location.partition("?")[0].partition("#")[0]))

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
        """Shorten a server's words for a message: one line, without control characters and without its secrets."""
        return one_line(hide_secrets(text, self._address.secrets))

    def hide(self, value: Any) -> Any:
        """Hide a secret that the server repeats in an answer; one that is short may stand there by chance."""
        secrets = [secret for secret in self._address.secrets if len(secret) >= TELLING]
        return _hide_in(value, secrets) if secrets else value

    @contextmanager
    def typed_errors(self) -> Iterator[None]:
        """Turn httpcore's errors into faults of this host."""
        try:
            yield
        except HTTP_ERRORS as error:
            proxy = self._proxy.url if self._proxy else ""
            raise fault_of_error(error, self.clean(str(error)), self.host, self.limits.silence, proxy) from None

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer as strict JSON in ASCII, line by line or as one document."""

    def __init__(
        self, transport: GuardedTransport, response: httpcore.Response, by_lines: bool, is_events: bool
    ) -> None:
        self._transport, self._response, self._by_lines, self._is_events = transport, response, by_lines, is_events

    def __iter__(self) -> Iterator[bytes]:
        with self._transport.typed_errors():
            for document in self._documents(self._response.iter_stream()):
                if self._is_events:
                    document = _event_data(document)
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
        host = self._transport.place
        try:
            text = document.decode()
        except UnicodeDecodeError as error:
            raise not_this_api(host, f"not UTF-8 at byte {error.start}") from None
        value, problem = parse_strict(text)
        if problem:
            raise not_this_api(host, f"not JSON: {self._transport.clean(problem)}")
        if not isinstance(value, dict):
            raise not_this_api(host, f"a JSON {type(value).__name__} where an object should be")
        if value.get("error"):
            raise ServerFault(f"{host} fails: {self._transport.clean(_error_text(value))}")
        return json.dumps(self._transport.hide(value)).encode() + b"\n"

    def close(self) -> None:
        self._response.close()


# ---------------------------------------------------------------------------------------------------------------------
# Pieces of HTTP


def _open_pool(url: httpx.URL, proxy: Proxy | None, backend: httpcore.NetworkBackend) -> httpcore.ConnectionPool:
    """Connections to one host, through the proxy before it."""
    options: dict[str, Any] = {"max_connections": None, "keepalive_expiry": KEEPALIVE_SECONDS}
    if url.scheme == "https":
        try:
            options["ssl_context"] = httpx.create_ssl_context()  # trusts SSL_CERT_FILE and SSL_CERT_DIR besides
        except OSError as error:
            what = (
                f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read ({error.strerror or error})"
            )
            raise TeacherError(f"{what}: name others, or unset it") from None
    if proxy:
        options["proxy"] = proxy.connection
    return httpcore.ConnectionPool(network_backend=backend, **options)


def _hide_in(value: Any, secrets: Sequence[str]) -> Any:
    """Hide secrets in all texts of a JSON value."""
    if isinstance(value, str):
        return hide_secrets(value, secrets)
    if isinstance(value, list):
        return [_hide_in(item, secrets) for item in value]
    if isinstance(value, dict):
        return {hide_secrets(key, secrets): _hide_in(item, secrets) for key, item in value.items()}
    return value


def _content_type(response: httpcore.Response) -> str:
    """The type that an answer says it has; none: JSON."""
    return httpx.Headers(response.headers).get("content-type", JSON_TYPES[0]).partition(";")[0].strip().lower()


def _event_data(line: bytes) -> bytes:
    """The data of a line of server-sent events (WHATWG HTML, 9.2), b"" for lines without any and for the end mark."""
    name, _, data = line.partition(b":")
    return b"" if name != b"data" or data.strip() == b"[DONE]" else data


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
