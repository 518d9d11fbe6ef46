"""Whatever is sent to our server, each request gets a right answer or a typed error, and those beside it theirs."""

import asyncio
import json
import os
import signal
import socket
import time
import warnings
from pathlib import Path

import httpx
import pytest
import tiny
import torch
from served import served

from schema_student.cli.main import VERBS
from schema_student.student import loading
from schema_student.student.generation import generate

SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}}, "required": ["n"], "additionalProperties": False}
USER = [{"role": "user", "content": "two"}]
GOOD = {"model": "student", "messages": USER, "max_tokens": 4}
KINDS = {"invalid_request_error", "authentication_error", "rate_limit_error", "server_error"}


HTTP = httpx.Client(verify=False, timeout=60, trust_env=False)  # making one reads all certificates each time


@pytest.fixture(scope="module", autouse=True)
def closed():
    yield
    HTTP.close()


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return tiny.load_student(tiny.tiny_settings(tmp_path_factory.mktemp("base"), max_new_tokens=8, max_seq_length=512))


@pytest.fixture(scope="module")
def address(student):
    with served(student, slots=64) as address:
        yield address


@pytest.fixture(scope="module")
def right(address):
    """The answer of the good request, by which each test sees that the server still answers."""
    return ask(address).json()["choices"][0]["message"]["content"]


def ask(address, **changes):
    return HTTP.post(f"{address}/v1/chat/completions", json={**GOOD, **changes})


def text_of(response):
    return response.json()["choices"][0]["message"]["content"]


def schema(wanted, **more):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": wanted, **more}}}


def tools(*functions, **more):
    return {"tools": [{"type": "function", "function": function} for function in functions], **more}


BAD_BODIES = {
    "no model": ({"model": None}, 400, "model"),
    "another model": ({"model": "gpt-4"}, 404, "model"),
    "a model that is a number": ({"model": 3}, 400, "model"),
    "a path for a model": ({"model": "../../etc/passwd"}, 404, "model"),
    "no messages": ({"messages": []}, 400, "messages"),
    "messages that are text": ({"messages": "two"}, 400, "messages"),
    "a message that is null": ({"messages": [None]}, 400, "messages"),
    "an unknown role": ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages"),
    "nobody asks": ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
    "content that is a number": ({"messages": [{"role": "user", "content": 3}]}, 400, "messages"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages"),
    "too many messages": ({"messages": USER * 300}, 400, "messages"),
    "a prompt that is too long": ({"messages": [{"role": "user", "content": "long " * 200}]}, 400, "messages"),
    "a call without a name": ({"messages": [{"role": "assistant", "tool_calls": [{}]}, *USER]}, 400, "messages"),
    "a format that is unknown": ({"response_format": {"type": "xml"}}, 400, "response_format"),
    "a format that is text": ({"response_format": "json"}, 400, "response_format"),
    "no schema in the format": ({"response_format": {"type": "json_schema"}}, 400, "response_format"),
    "a schema that is a list": (schema([]), 400, "response_format"),
    "a schema of an unknown type": (schema({"type": "banana"}), 400, "response_format"),
    "a schema that is looked for elsewhere": (schema({"$ref": "http://127.0.0.1:9/x.json"}), 400, "response_format"),
    "a schema that refers to a file": (schema({"$ref": "file:///etc/passwd"}), 400, "response_format"),
    "a schema with a bad pattern": (schema({"pattern": "("}), 400, "response_format"),
    "a schema of an unknown draft": (schema({"$schema": "urn:x", "type": "object"}), 400, "response_format"),
    "a schema that no answer obeys": (
        schema({"type": "object", "allOf": [False]}, strict=True),
        400,
        "response_format",
    ),
    "tools that are text": ({"tools": "hammer"}, 400, "tools"),
    "a tool without a name": (tools({"parameters": {}}), 400, "tools"),
    "a tool of another kind": ({"tools": [{"type": "retrieval"}]}, 400, "tools"),
    "two tools of one name": (tools({"name": "f"}, {"name": "f"}), 400, "tools"),
    "a tool whose schema is broken": (tools({"name": "f", "parameters": {"type": "banana"}}), 400, "tools"),
    "a tool that is not there": (tools({"name": "f"}, tool_choice={"function": {"name": "g"}}), 400, "tool_choice"),
    "a choice that is unknown": (tools({"name": "f"}, tool_choice="perhaps"), 400, "tool_choice"),
    "a temperature below 0": ({"temperature": -1}, 400, "temperature"),
    "a temperature that is text": ({"temperature": "hot"}, 400, "temperature"),
    "no tokens": ({"max_tokens": 0}, 400, "max_tokens"),
    "tokens that are text": ({"max_completion_tokens": "many"}, 400, "max_completion_tokens"),
    "an empty stop": ({"stop": ""}, 400, "stop"),
    "too many stops": ({"stop": ["a"] * 9}, 400, "stop"),
    "a stop that is too long": ({"stop": "a" * 999}, 400, "stop"),
    "a seed beyond 64 bits": ({"seed": 2**70}, 400, "seed"),
    "several answers": ({"n": 2}, 400, "n"),
    "a share of tokens": ({"top_p": 0.5}, 400, "top_p"),
    "log p of tokens": ({"logprobs": True}, 400, "logprobs"),
    "a day that is none": ({"metadata": {"current_date": "soon"}}, 400, "metadata"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused_by_the_parameter_that_is_wrong(address, right, name):
    changes, status, param = BAD_BODIES[name]
    refused = ask(address, **changes)
    error = refused.json()["error"]
    assert refused.status_code == status and error["type"] in KINDS and error["message"], error
    assert (error["param"] or "").startswith(param), error


BAD_REQUESTS = {
    "nothing": (b"", 400),
    "no JSON": (b"{", 400),
    "a list": (b"[]", 400),
    "not UTF-8": (b"\xff{}", 400),
    "a key twice": (b'{"model": "student", "model": "student"}', 400),
    "no number": (b'{"temperature": NaN}', 400),
    "half a character": (b'{"model": "\\ud800"}', 400),
    "too deep": (b'{"a":' * 300 + b"1" + b"}" * 300, 400),
    "much too deep": (b"[" * 200_000, 400),
    "too long": (b" " * (5 * 2**20), 413),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_body_that_is_no_request_is_refused(address, right, name):
    body, status = BAD_REQUESTS[name]
    refused = HTTP.post(f"{address}/v1/chat/completions", content=body)
    assert refused.status_code == status and refused.json()["error"]["type"] in KINDS
    assert text_of(ask(address)) == right


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 404),
        ("POST", "/", 405),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models/x", 404),
        ("DELETE", "/health", 405),
        ("GET", "/v1/../../etc/passwd", 404),
        ("POST", "/v1/embeddings", 404),
    ],
)
def test_a_path_or_a_method_that_there_is_not_is_refused(address, method, path, status):
    refused = HTTP.request(method, address + path)
    assert refused.status_code == status and refused.json()["error"]["type"] in KINDS


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=["nonsense", "a version", "no host", "TLS", "a long path", "a negative length"],
)
def test_what_is_no_http_is_refused_or_closed(address, right, head):
    with connect(address) as connection:
        connection.sendall(head + b"\r\n\r\n")
        said = connection.recv(4096)
    assert said.split(b" ")[1] in (b"400", b"403")
    assert text_of(ask(address)) == right


def connect(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head_of(body):
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n"


def request_of(address, **changes):
    body = json.dumps({**GOOD, **changes}).encode()
    return head_of(body) % address.removeprefix("http://").encode() + body


def test_slow_clients_are_closed_and_hold_up_nobody(student, monkeypatch):
    from schema_student.deploy.serving import guarding

    monkeypatch.setattr(guarding, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(guarding, "BODY_SECONDS", 0.5)
    with served(student, slots=4) as address:
        silent, half_a_head, half_a_body = connect(address), connect(address), connect(address)
        half_a_head.sendall(request_of(address)[:30])
        half_a_body.sendall(request_of(address)[:-5])
        assert ask(address).status_code == 200
        assert silent.recv(100) == b"" == half_a_head.recv(100)
        assert b"408" in (said := half_a_body.recv(4096)) and b"invalid_request_error" in said + half_a_body.recv(4096)
        for each in (silent, half_a_head, half_a_body):
            each.close()


def test_clients_that_go_away_take_their_requests_with_them(student, address, right):
    for stream in (False, True):
        for _ in range(20):
            with connect(address) as connection:
                connection.sendall(request_of(address, stream=stream, max_tokens=8))
    assert text_of(ask(address)) == right


def test_a_thousand_requests_at_once_are_all_answered_rightly(student, address):
    texts = [f"request {i % 50}" for i in range(900)]
    known = {
        text: written[0].text for text, written in zip(texts[:50], generate(student, texts[:50], 4, 16), strict=True)
    }
    bodies = [({"messages": [{"role": "user", "content": text}]}, known[text]) for text in texts]
    bodies += [({"temperature": -1}, None), ({**schema(SCHEMA, strict=True), "max_tokens": 8}, '{"n":')] * 50

    async def one(changes, wanted):
        reader, writer = await asyncio.open_connection(*address.removeprefix("http://").split(":"))
        body = json.dumps({**GOOD, **changes}).encode()
        writer.write(head_of(body) % address.removeprefix("http://").encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        value = json.loads(await reader.readexactly(length))
        writer.close()
        if wanted is None:
            return value["error"]["param"] == "temperature"
        return value["choices"][0]["message"]["content"].startswith(wanted)

    async def all_of_them():
        return await asyncio.gather(*(one(*each) for each in bodies))

    before = resident_bytes() if Path("/proc/self/statm").exists() else None
    assert asyncio.run(all_of_them()) == [True] * 1000
    assert before is None or resident_bytes() - before < 256 * 2**20


def resident_bytes():
    """The memory that this process, and so the server in its thread, holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_bad_requests_leave_nothing_in_memory(address, right):
    def ask_all():
        for changes, *_ in BAD_BODIES.values():
            ask(address, **changes)
        for body, _ in BAD_REQUESTS.values():
            HTTP.post(f"{address}/v1/chat/completions", content=body)
        return resident_bytes()

    first = ask_all()
    assert max(ask_all() for _ in range(2)) - first < 16 * 2**20
    assert text_of(ask(address)) == right


def test_beyond_what_is_held_at_once_each_is_told_to_come_again(student):
    async def all_of_them(address):
        async with httpx.AsyncClient(timeout=60, verify=False) as client:
            asked = [client.post(f"{address}/v1/chat/completions", json=GOOD) for _ in range(60)]
            return await asyncio.gather(*asked)

    with served(student, slots=2, requests=8) as address:
        found = asyncio.run(all_of_them(address))
    statuses = [each.status_code for each in found]
    assert {*statuses} == {200, 429} and len({text_of(each) for each in found if each.status_code == 200}) == 1


def test_a_signal_ends_the_server_once_all_is_answered(student, tmp_path):
    process = fork_server(student, tmp_path)
    try:
        while not (notes := list((tmp_path / "serving").glob("*.json"))):
            time.sleep(0.02)
        address = json.loads(notes[0].read_text())["url"]
        with connect(address) as connection:
            connection.sendall(request_of(address, model="base", max_tokens=200, messages=USER))
            assert HTTP.get(f"{address}/health").status_code == 200  # the loop has read what came before
            os.kill(process, signal.SIGTERM)
            assert b"200 OK" in connection.recv(4096)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0 and not notes[0].exists()
    except BaseException:
        os.kill(process, signal.SIGKILL)
        raise


def fork_server(student, folder):
    """Run the verb in a process of its own that has all imported already; returns its number."""
    with warnings.catch_warnings(action="ignore"):  # this process has threads, of which the new one needs none
        process = os.fork()
    if process:
        return process
    try:
        torch.set_num_threads(1)  # those of this process are not in the new one
        loading.load_student = lambda settings, adapter=None: student
        words = ["--base-model", student.choice.base, "--port", "0", "--output-dir", str(folder), "--dtype", "float32"]
        VERBS["serve"](words)
        os._exit(0)
    finally:
        os._exit(1)
