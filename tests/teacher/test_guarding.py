"""The embedded teacher's server answers our own client alone, reads no more than it should, and waits for nobody."""

from __future__ import annotations

import json
import socket

import pytest

from schema_student.core.settings import default_settings
from schema_student.teacher.client import open_teacher
from schema_student.teacher.embedded import guarding
from schema_student.teacher.embedded import server as embedded_server
from schema_student.teacher.embedded.identity import MODEL
from schema_student.teacher.embedded.server import serve

PATIENCE = 20  # seconds that a test waits for what must come


@pytest.fixture(scope="module")
def address():
    with serve() as found:
        yield found


def connect(address):
    host, _, port = address.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def head(address, first="GET /api/tags HTTP/1.1", **headers):
    """A request's head as our client sends it, but for these headers (None: without it)."""
    own = {"Host": address.url.removeprefix("http://"), "Authorization": address.authorization, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in own.items() if value is not None]
    return "\r\n".join([first, *lines, "", ""]).encode()


def exchange(address, data):
    """Send bytes; the status of the answer and its whole text. The server must close the connection."""
    with connect(address) as connection:
        connection.sendall(data)
        text = b""
        while more := connection.recv(65536):
            text += more
    return int(text.split()[1]), text.decode()


def test_who_has_the_token_is_answered(address):
    assert exchange(address, head(address, Connection="close"))[0] == 200


@pytest.mark.parametrize("token", [None, "Bearer x", "", "Basic dDp0", "Bearer \u00e9"])
def test_who_has_not_the_token_is_not(address, token):
    status, text = exchange(address, head(address, Authorization=token))
    assert status == 401 and MODEL not in text


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags", "/nothing"])
def test_no_path_is_open_to_others(address, path):
    assert exchange(address, head(address, f"GET {path} HTTP/1.1", Authorization=None))[0] == 401


@pytest.mark.parametrize("host", ["evil.test", "evil.test:80", "127.0.0.1", "127.0.0.1.evil.test", "", None])
def test_another_host_than_this_machine_is_refused(address, host):
    assert exchange(address, head(address, Host=host))[0] == 403


def test_localhost_is_this_machine(address):
    port = address.url.rpartition(":")[2]
    assert exchange(address, head(address, Host=f"LOCALHOST:{port}", Connection="close"))[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://127.0.0.1"])
def test_a_web_page_is_refused(address, origin):
    assert exchange(address, head(address, Origin=origin))[0] == 403


def test_two_hosts_or_two_tokens_are_refused(address):
    twice = head(address).replace(b"\r\n\r\n", b"\r\nHost: evil.test\r\n\r\n")
    assert exchange(address, twice)[0] == 403
    twice = head(address).replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer x\r\n\r\n")
    assert exchange(address, twice)[0] == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Length": guarding.BODY_BYTES + 1}, 413),
        ({"Content_Length": 600 * 2**20}, 413),
        ({"Content_Length": "-1"}, 400),
        ({"Content_Length": "many"}, 400),
        ({"Content_Length": "9" * 4000}, 400),
        ({"Transfer_Encoding": "chunked"}, 411),
    ],
)
def test_a_body_that_is_too_long_or_of_no_length_is_refused_unread(address, headers, status):
    assert exchange(address, head(address, "POST /api/chat HTTP/1.1", **headers))[0] == status


def test_a_body_that_is_long_enough_is_read(address):
    body = json.dumps({"model": "other", "pad": "x" * (guarding.BODY_BYTES - 100)}).encode()
    data = head(address, "POST /api/chat HTTP/1.1", Content_Length=len(body), Connection="close") + body
    assert exchange(address, data)[0] == 404  # of the model


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET /api/tags HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_what_is_half_open_is_closed_after_a_while(data, address, monkeypatch):
    monkeypatch.setattr(embedded_server, "STRANGER_SECONDS", 0.2)
    with connect(address) as connection:
        connection.sendall(data)
        assert connection.recv(1) == b""


def test_who_sends_byte_by_byte_is_closed_too(address, monkeypatch):
    monkeypatch.setattr(embedded_server, "STRANGER_SECONDS", 0.2)
    with connect(address) as connection:
        connection.settimeout(0.02)
        for _ in range(1000):  # 20 s
            try:
                connection.sendall(b"G")
                assert connection.recv(1) == b""
                break
            except TimeoutError:
                continue
            except OSError:
                break  # closed while it was sending
        else:
            pytest.fail("it was never closed")


def test_a_body_that_does_not_come_is_not_waited_for_without_end(address, monkeypatch):
    monkeypatch.setattr(embedded_server, "CLIENT_SECONDS", 0.2)
    with connect(address) as connection:
        connection.sendall(head(address, "POST /api/chat HTTP/1.1", Content_Length=50))
        assert connection.recv(1) == b""


def test_many_half_open_connections_do_not_keep_our_client_out(address, tmp_path, monkeypatch):
    monkeypatch.setattr(guarding, "STRANGERS", 8)
    strangers = [connect(address) for _ in range(40)]
    try:
        assert exchange(address, head(address, Connection="close"))[0] == 200
        closed = sum(is_closed(stranger) for stranger in strangers[:31])
        assert closed == 31  # all but the last eight, one of which may have given way to us
    finally:
        for stranger in strangers:
            stranger.close()


def is_closed(connection):
    return connection.recv(1) == b""


def test_a_client_that_goes_away_is_no_traceback(address, capfd):
    for data in (b"GET", head(address), head(address, "POST /api/chat HTTP/1.1", Content_Length=50)):
        with connect(address) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends with a RST
            connection.sendall(data)
    assert exchange(address, head(address, Connection="close"))[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_our_client_has_the_token_and_nobody_sees_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("schema_student.teacher.embedded.server.secrets.token_urlsafe", lambda n: "t0ken-of-a-test")
    settings = default_settings(output_dir=str(tmp_path), teacher_model="embedded", teacher_concurrency=64)
    with open_teacher(settings) as teacher:
        asks = [("domain_spec", {"index": i % 30}) for i in range(128)]
        assert all(answer["fields"] for answer in teacher.ask_many(asks))
        assert "t0ken" not in repr(teacher.info) + repr(teacher.chat.choice)
    said = capsys.readouterr()
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert "t0ken" not in said.out + said.err and b"t0ken" not in kept
