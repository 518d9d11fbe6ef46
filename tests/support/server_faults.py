"""Every way to fail that known servers have: what is sent, the kind of fault that it is, and how the question ends."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from typing import Any

from fault_server import MIB, NUM_CTX, READ, VERDICT, Connection, Fault, Send, line, said, status, whole

WORDS = line(said('{"is_good"', done=False))
GOOD = line(said(VERDICT))


def raw(*parts: bytes) -> Send:
    def send(connection: Connection) -> None:
        for part in parts:
            connection.raw(part)
        connection.close()

    return send


def chunked(end: Callable[[Connection], None], *parts: bytes, **headers: Any) -> Send:
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


def send_slowly(data: Callable[[int], bytes]) -> Callable[[Connection], None]:
    """A byte every 20 ms: never silent, never done."""

    def send(connection: Connection) -> None:
        for i in range(250):
            connection.raw(data(i))
            if connection.server.ended.wait(0.02):
                break
        connection.close()

    return send


def send_200_mib(part: bytes) -> Send:
    """The same again and again."""

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


def busy(**headers: Any) -> Send:
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

TABLE: list[tuple[str, str, str, Send]] = [
    # Connections
    ("connection refused", "connect", "stop", refused),
    ("connection reset before a word", "torn", "retried", Connection.reset),
    ("connection closed before a word", "torn", "retried", Connection.close),
    ("closed in the middle of the head", "torn", "retried", raw(b"HTTP/1.1 200 OK\r\nContent-Ty")),
    ("reset in the middle of the answer", "torn", "retried", chunked(Connection.reset, WORDS)),
    ("closed in the middle of the answer", "torn", "retried", chunked(Connection.close, WORDS)),
    ("closed after done, but before the last chunk", "torn", "retried", chunked(Connection.close, GOOD)),
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
    ("silence in the middle of the answer", "silence", "retried", chunked(silence, WORDS)),
    ("a byte now and then", "deadline", "retried", chunked(send_slowly(lambda i: b"1\r\n \r\n"), WORDS)),
    ("a head byte by byte", "deadline", "retried", send_slowly(lambda i: b"HTTP/1.1 200 OK\r\nX: "[i : i + 1] or b"x")),
    ("blank lines for ever", "deadline", "retried", chunked(send_slowly(lambda i: b"1\r\n\n\r\n"))),
    # Size
    ("one line of 200 MiB", "size", "failure", send_200_mib(b" " * MIB)),
    ("200 MiB of short lines", "size", "failure", send_200_mib(WORDS * 1000)),
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
    ("a web page that says it is text", "protocol", "retried", whole(HTML, kind="text/plain")),
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
    ("a count that is a word", "protocol", "retried", whole(line(said(VERDICT, eval_count="many")))),
    ("a count below nothing", "protocol", "retried", whole(line(said(VERDICT, prompt_eval_count=-5)))),
    ("a count beyond all", "protocol", "retried", whole(line(said(VERDICT, eval_count=10**400)))),
    ("a time that is an object", "protocol", "retried", whole(line(said(VERDICT, created_at={})))),
    ("a reason that is a list", "protocol", "retried", whole(line(said(VERDICT, done_reason=["stop"])))),
    ("a list for the message", "protocol", "retried", whole(line({**said(""), "message": [VERDICT]}))),
    (
        "parts that are no text",
        "protocol",
        "retried",
        whole(line({**said(""), "message": {"role": "a", "content": {}}})),
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
    ("429", "busy", "retried", busy()),
    ("429 with Retry-After", "busy", "retried", busy(Retry_After="0")),
    ("429 with a Retry-After that is over", "busy", "retried", busy(Retry_After=HTTP_DATE)),
    ("429 with a Retry-After that is none", "busy", "retried", busy(Retry_After="soon")),
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
FAULTS = {name: Fault(name, kind, end, send) for name, kind, end, send in TABLE}
