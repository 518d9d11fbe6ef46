"""Guard a server on loopback: whom it answers, how much it reads, how long it waits.

Loopback is open to every user and every web page of the machine. A page is told by its Origin, or, where it has its
name resolved to 127.0.0.1 (DNS rebinding), by the Host that it asks for; everybody else by a token that only our own
client has. What says nothing, or says it slowly, is closed after a while, and at once where there are many of those.
"""

from __future__ import annotations

import hmac
import io
import re
import socket
import threading
import time
from contextlib import suppress
from email.message import Message
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler
from typing import Any

BODY_BYTES = 8 * 2**20
STRANGER_SECONDS = 5.0  # that a connection may take to show the token
CLIENT_SECONDS = 300.0  # that a request of our own client may take to come, silence before it included
STRANGERS = 128  # connections that have not shown the token; the oldest is closed for one more


class Refused(Exception):
    """An answer other than 200: (status, text), sent as Ollama does, {"error": text}."""


def check_caller(headers: Message, port: int, token: str) -> None:
    """Check that a request is of our own client; raises Refused."""
    if headers.get_all("Origin"):
        raise Refused(403, "no web page may ask")
    hosts = [str(host).casefold() for host in headers.get_all("Host", [])]
    if len(hosts) != 1 or hosts[0] not in {f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"}:
        raise Refused(403, "the Host must be this machine's own")
    given = [str(value) for value in headers.get_all("Authorization", [])]
    if len(given) != 1 or not hmac.compare_digest(given[0].encode("utf-8", "replace"), f"Bearer {token}".encode()):
        raise Refused(401, "the token is missing or wrong")


def body_length(headers: Message) -> int:
    """Read how long a request's body is; raises Refused where it is too long, or does not say it in one number."""
    if headers.get_all("Transfer-Encoding"):
        raise Refused(411, "the body must have a Content-Length")
    lengths = headers.get_all("Content-Length", ["0"])
    if len(lengths) != 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
        raise Refused(400, "Content-Length must be one number")
    if (length := int(lengths[0])) > BODY_BYTES:
        raise Refused(413, f"the body is longer than {BODY_BYTES} bytes")
    return length


class TimedReader(io.RawIOBase):
    """What a connection sends until a deadline; raises TimeoutError then, however busily it sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class GuardedServer(ThreadingHTTPServer):
    """An HTTP server on a free loopback port with few connections of strangers at a time; silent about them."""

    daemon_threads = True
    block_on_close = False  # a client's idle keep-alive connection must not hold up the end
    request_queue_size = 64

    def __init__(self, handler: type[BaseRequestHandler], token: str) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.token = token
        self._strangers: dict[socket.socket, None] = {}  # in the order in which they came
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection; where there are too many strangers, the oldest is closed."""
        with self._lock:
            if len(self._strangers) >= STRANGERS:
                oldest = next(iter(self._strangers))
                self._strangers.pop(oldest)
                _shut(oldest)
            self._strangers[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.trust(request)
        super().shutdown_request(request)

    def trust(self, connection: socket.socket) -> None:
        """Count a connection as a stranger's no more."""
        with self._lock:
            self._strangers.pop(connection, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that was closed in mid-sentence: the client says it where it is ours."""


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it has gone already
        connection.shutdown(socket.SHUT_RDWR)
