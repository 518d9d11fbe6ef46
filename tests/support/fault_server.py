"""A model server on loopback that fails on demand: raw sockets, so that it can break HTTP itself.

    with fault_server() as server:
        server.fault = FAULTS["torn chunk"]     # for every chat from now on; `server.times` limits how many
        open_teacher(settings with teacher_host [server.host])

It speaks Ollama's API and OpenAI's. Its probe and its other routes are healthy, unless `server.routes` says otherwise.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

VERDICT = {"is_good": True, "reason": "fine"}
PROBED = {"color": "red", "number": 1}
MIB = 2**20
NUM_CTX = 1024  # of the settings that these faults are meant for
READ = 700  # tokens that the prompt is said to have
Send = Callable[["Connection"], None]


@dataclass(frozen=True)
class Fault:
    """One way to fail. `kind`: of the typed fault; `end`: retried, asked anew, failure (of that question), stop."""

    name: str
    kind: str
    end: str
    send: Send


class Connection:
    """One accepted connection and the request on it."""

    def __init__(self, server: FaultServer, sock: socket.socket) -> None:
        self.server, self.sock = server, sock
        self.path, self.headers, self.body, self.open = "", {}, {}, True

    def read_request(self) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            if not more or more.startswith(b"\x16"):  # a TLS handshake
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        while len(body) < int(self.headers.get("content-length", 0)):
            body += self.sock.recv(65536)
        self.path, self.body = first.split()[1], json.loads(body) if body else {}
        return True

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self, status: int = 200, kind: str | None = "application/x-ndjson", **headers: Any) -> None:
        lines = [f"HTTP/1.1 {status} X"] + ([f"Content-Type: {kind}"] if kind else [])
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    def whole(self, body: bytes, status: int = 200, kind: str | None = "application/x-ndjson", **headers: Any) -> None:
        self.head(status, kind, **{"Content_Length": len(body), **headers})
        self.raw(body)

    def chunk(self, data: bytes) -> None:
        self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    def close(self) -> None:
        self.open = False
        self.sock.close()

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class FaultServer:
    """Answers well, but for `fault`, the first `times` chats."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.times = 10**9
        self.routes: dict[str, Send] = {}  # path -> what is sent there instead
        self.digest = "digest 1"
        self.chats: list[dict[str, Any]] = []
        self.seen_headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.talk, args=(Connection(self, sock),), daemon=True).start()

    def talk(self, connection: Connection) -> None:
        with suppress(OSError), connection.sock:
            while connection.open and connection.read_request():
                self.answer(connection)

    def answer(self, connection: Connection) -> None:
        path = connection.path
        with self.lock:
            self.seen_headers.append(connection.headers)
        if path in self.routes:
            return self.routes[path](connection)
        if path == "/api/version":
            return connection.whole(b'{"version": "0.12.3"}', kind="application/json")
        if path == "/api/tags":
            return connection.whole(line({"models": [{"model": "m:1", "digest": self.digest}]}))
        if path == "/api/show":
            return connection.whole(line({"model_info": {"x.context_length": 131072}, "capabilities": ["completion"]}))
        if path == "/v1/models":
            entry = {"id": "m:1", "owned_by": "vllm", "root": self.digest, "max_model_len": 4096}
            return connection.whole(line({"object": "list", "data": [entry]}), kind="application/json")
        if "Name a color" in connection.body["messages"][0]["content"]:
            return connection.whole(good(connection, PROBED))
        with self.lock:
            self.chats.append(connection.body)
            fails = self.fault is not None and self.times > 0
            self.times -= fails
        if fails and self.fault is not None:
            return self.fault.send(connection)
        return connection.whole(good(connection, VERDICT))

    def stop(self) -> None:
        self.ended.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@contextmanager
def fault_server() -> Iterator[FaultServer]:
    server = FaultServer()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


# ---------------------------------------------------------------------------------------------------------------------
# Bodies


def line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def said(content: Any, **facts: Any) -> dict[str, Any]:
    """A last line of Ollama's stream."""
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    message = {"role": "assistant", "content": text}
    counts = {"prompt_eval_count": READ, "eval_count": 9}
    return {"model": "m:1", "message": message, "done": True, "done_reason": "stop", **counts, **facts}


def good(connection: Connection, value: Any) -> bytes:
    if connection.path.endswith("/v1/chat/completions"):
        choice = {"index": 0, "message": {"role": "assistant", "content": json.dumps(value)}, "finish_reason": "stop"}
        return line({"choices": [choice], "usage": {"prompt_tokens": READ, "completion_tokens": 9}})
    return line(said(value))


WORDS = line(said('{"is_good"', done=False))
GOOD = line(said(VERDICT))


def whole(body: bytes, **facts: Any) -> Send:
    return lambda connection: connection.whole(body, **facts)


def status(code: int, body: bytes = b'{"error": "no"}', kind: str = "application/json", **headers: Any) -> Send:
    return lambda connection: connection.whole(body, code, kind, **headers)


def raw(*parts: bytes) -> Send:
    def send(connection: Connection) -> None:
        for part in parts:
            connection.raw(part)
        connection.close()

    return send


def then(end: Callable[[Connection], None], *parts: bytes, **headers: Any) -> Send:
    """A chunked answer that begins well and then does `end`."""

    def send(connection: Connection) -> None:
        connection.head(Transfer_Encoding="chunked", **headers)
        for part in parts:
            connection.chunk(part)
        end(connection)

    return send


def silence(connection: Connection) -> None:
    connection.server.ended.wait(5)
    connection.close()


def drip(data: Callable[[int], bytes]) -> Callable[[Connection], None]:
    """A byte every 20 ms: never silent, never done."""

    def send(connection: Connection) -> None:
        for i in range(250):
            connection.raw(data(i))
            if connection.server.ended.wait(0.02):
                break
        connection.close()

    return send


def flood(part: bytes) -> Send:
    """200 MiB of the same."""

    def send(connection: Connection) -> None:
        connection.head()
        for _ in range(200 * MIB // len(part)):
            connection.raw(part)
        connection.close()

    return send


def refused(connection: Connection) -> None:
    """The server ends: this connection is closed, and nobody listens any more."""
    connection.server.stop()
    connection.close()


def gone_then_busy(**headers: Any) -> Send:
    return status(429, b'{"error": "server busy, please try again"}', **headers)


def pulled_anew(connection: Connection) -> None:
    connection.server.digest = "digest 2"
    connection.whole(GOOD)


def prompt_tokens(count: Callable[[int], int]) -> Send:
    """An answer whose count of prompt tokens is made of the prompt's characters."""

    def send(connection: Connection) -> None:
        chars = sum(len(message["content"]) for message in connection.body["messages"])
        connection.whole(line(said(VERDICT, prompt_eval_count=count(chars))))

    return send


HTTP_DATE = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(0))
HTML = b"<html><body>Bad gateway</body></html>"
DEEP = b'{"message": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"

_TABLE: list[tuple[str, str, str, Send]] = [
    # Connections
    ("connection refused", "connect", "stop", refused),
    ("connection reset before a word", "torn", "retried", Connection.reset),
    ("connection closed before a word", "torn", "retried", Connection.close),
    ("closed in the middle of the head", "torn", "retried", raw(b"HTTP/1.1 200 OK\r\nContent-Ty")),
    ("reset in the middle of the answer", "torn", "retried", then(Connection.reset, WORDS)),
    ("closed in the middle of the answer", "torn", "retried", then(Connection.close, WORDS)),
    ("closed after done, but before the last chunk", "torn", "retried", then(Connection.close, GOOD)),
    (
        "shorter than its Content-Length",
        "torn",
        "retried",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", GOOD),
    ),
    ("a stream without done", "torn", "retried", whole(WORDS)),
    ("an empty body", "torn", "retried", whole(b"")),
    ("blank lines alone", "torn", "retried", whole(b"\n\n\n")),
    # Time
    ("silence before the head", "silence", "retried", silence),
    ("silence in the middle of the answer", "silence", "retried", then(silence, WORDS)),
    ("a byte now and then", "deadline", "retried", then(drip(lambda i: b"1\r\n \r\n"), WORDS)),
    ("a head byte by byte", "deadline", "retried", drip(lambda i: b"HTTP/1.1 200 OK\r\nX: "[i : i + 1] or b"x")),
    ("blank lines for ever", "deadline", "retried", then(drip(lambda i: b"1\r\n\n\r\n"))),
    # Size
    ("one line of 200 MiB", "size", "failure", flood(b" " * MIB)),
    ("200 MiB of short lines", "size", "failure", flood(WORDS * 1000)),
    ("a head of 1 MiB", "protocol", "retried", raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MIB // 6))),
    # What is not this API
    ("a web page", "protocol", "retried", whole(HTML, kind="text/html")),
    ("a web page that says it is JSON", "protocol", "retried", whole(HTML)),
    ("JSON that says it is a web page", "protocol", "retried", whole(GOOD, kind="text/html; charset=utf-8")),
    ("JSON that says it is Latin-1", "protocol", "retried", whole(GOOD, kind="application/json; charset=latin-1")),
    ("no content (204)", "protocol", "retried", raw(b"HTTP/1.1 204 No Content\r\n\r\n")),
    ("not HTTP", "protocol", "retried", raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")),
    ("a status that is no number", "protocol", "retried", raw(b"HTTP/1.1 fine OK\r\n\r\n")),
    (
        "a chunk of no size",
        "protocol",
        "retried",
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}"),
    ),
    ("a Content-Length of no number", "protocol", "retried", raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")),
    (
        "two Content-Lengths",
        "protocol",
        "retried",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456"),
    ),
    (
        "longer than its Content-Length",
        "protocol",
        "retried",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", GOOD),
    ),
    ("bytes that are not UTF-8", "protocol", "retried", whole(GOOD.replace(b"fine", b"f\xffne"))),
    ("a line that is not JSON", "protocol", "retried", whole(WORDS + b"{oops}\n" + GOOD)),
    ("a line that is cut", "protocol", "retried", whole(GOOD[:-20])),
    ("an array for an object", "protocol", "retried", whole(b"[" + GOOD.strip() + b"]\n")),
    ("null for an object", "protocol", "retried", whole(b"null\n")),
    ("JSON nested 100,000 deep", "protocol", "retried", whole(DEEP)),
    ("a key that stands there twice", "protocol", "retried", whole(b'{"done": false, ' + GOOD[1:])),
    ("NaN", "protocol", "retried", whole(GOOD.replace(b"%d" % READ, b"NaN"))),
    ("half a surrogate pair", "protocol", "retried", whole(GOOD.replace(b"fine", b"\\ud83d"))),
    ("no message", "protocol", "retried", whole(b'{"model": "m:1", "done": true}\n')),
    (
        "content that is a number",
        "protocol",
        "retried",
        whole(line({**said(""), "message": {"role": "a", "content": 5}})),
    ),
    ("words after done", "protocol", "retried", whole(GOOD + WORDS)),
    # Encodings
    ("gzip that is none", "encoding", "stop", whole(b"\x1f\x8b garbage", Content_Encoding="gzip")),
    ("gzip of 10 MiB", "encoding", "stop", whole(gzip.compress(b" " * 10 * MIB), Content_Encoding="gzip")),
    # Redirects
    ("302 to another host", "redirect", "stop", status(302, b"", Location="http://example.org/api/chat")),
    ("307 to another path", "redirect", "stop", status(307, b"", Location="/v2/chat")),
    ("301 to nowhere", "redirect", "stop", status(301, b"")),
    # Statuses
    ("400", "refusal", "failure", status(400, b'{"error": "bad option"}')),
    ("413", "refusal", "failure", status(413, HTML, "text/html")),
    ("422", "refusal", "failure", status(422, b'{"detail": "ill-typed"}')),
    ("401", "access", "stop", status(401, b'{"error": "unauthorized"}')),
    ("403", "access", "stop", status(403, HTML, "text/html")),
    ("404 of the model", "missing", "stop", status(404, b'{"error": "model \'m:1\' not found"}')),
    ("408", "server", "retried", status(408)),
    ("429", "busy", "retried", gone_then_busy()),
    ("429 with Retry-After", "busy", "retried", gone_then_busy(Retry_After="0")),
    ("429 with a Retry-After that is over", "busy", "retried", gone_then_busy(Retry_After=HTTP_DATE)),
    ("429 with a Retry-After that is none", "busy", "retried", gone_then_busy(Retry_After="soon")),
    ("500", "server", "retried", status(500, b'{"error": "llama runner process has terminated"}')),
    ("500 with a torn body", "server", "retried", raw(b"HTTP/1.1 500 X\r\nContent-Length: 99\r\n\r\n{")),
    ("500 with binary", "server", "retried", status(500, b"\xff\x00\x1b[31m")),
    ("502", "server", "retried", status(502, HTML, "text/html")),
    ("503", "busy", "retried", status(503, b'{"error": "server overloaded"}')),
    ("504", "server", "retried", status(504, b"")),
    ("an error in a stream", "server", "retried", whole(b'{"error": "out of memory"}\n')),
    ("an error after words", "server", "retried", whole(WORDS + b'{"error": "out of memory"}\n')),
    ("an error that is an object", "server", "retried", whole(b'{"error": {"message": "out of memory"}}\n')),
    # Answers of no use
    ("null content", "answer", "asked anew", whole(line(said(None)))),
    ("no content", "answer", "asked anew", whole(line({**said(""), "message": {"role": "assistant"}}))),
    ("empty content", "answer", "asked anew", whole(line(said("")))),
    (
        "content in thinking alone",
        "answer",
        "asked anew",
        whole(line({**said(""), "message": {"role": "a", "thinking": "{}"}})),
    ),
    ("prose", "answer", "asked anew", whole(line(said("I would rather not.")))),
    ("JSON that is cut", "answer", "asked anew", whole(line(said('{"is_good": true, "rea')))),
    (
        "JSON with a key twice",
        "answer",
        "asked anew",
        whole(line(said('{"is_good": true, "is_good": false, "reason": ""}'))),
    ),
    ("JSON of another schema", "answer", "asked anew", whole(line(said({"is_good": "yes", "reason": ""})))),
    ("done_reason length", "cut", "asked anew", whole(line(said(VERDICT, done_reason="length")))),
    # Prompts that were not read
    (
        "a prompt that fills the context",
        "context",
        "failure",
        whole(line(said(VERDICT, prompt_eval_count=NUM_CTX - 5))),
    ),
    (
        "a prompt cut to half the context",
        "context",
        "failure",
        whole(line(said(VERDICT, prompt_eval_count=NUM_CTX // 2 + 2))),
    ),
    ("a prompt cut to the server's own context", "context", "failure", prompt_tokens(lambda chars: chars // 12)),
    # Other models
    ("a model pulled anew in mid-run", "changed", "stop", pulled_anew),
]
FAULTS = {name: Fault(name, kind, end, send) for name, kind, end, send in _TABLE}
