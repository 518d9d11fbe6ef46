"""A model server on loopback that fails on demand: raw sockets, so that it can break HTTP itself.

    with fault_server() as server:
        server.fault = FAULTS["503"]     # of server_faults.py, for every chat from now on; `server.times`: how many
        open_teacher(settings with teacher_host [server.host])

It speaks Ollama's API and OpenAI's. Its probe and its other routes are healthy, unless `server.routes` says otherwise.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
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


def whole(body: bytes, **facts: Any) -> Send:
    return lambda connection: connection.whole(body, **facts)


def status(code: int, body: bytes = b'{"error": "no"}', kind: str = "application/json", **headers: Any) -> Send:
    return lambda connection: connection.whole(body, code, kind, **headers)
