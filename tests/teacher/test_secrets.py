"""A secret goes to its host alone and is shown nowhere: one in every place, and all that a run leaves is searched."""

from __future__ import annotations

import json
import logging
from base64 import b64encode

import pytest
from fault_server import Fault, fault_server, good, line, said, status, whole

from schema_student.core.errors import UserError
from schema_student.core.flags import load_settings
from schema_student.core.settings import default_settings
from schema_student.data.domains import write_domain_specs
from schema_student.teacher.embedded.replies import reply

pytestmark = pytest.mark.usefixtures("nothing_named")

PASSWORD, KEY, PROXY_PASSWORD = "S3cret/Passw0rd", "sk-T0pSecretKey", "Pr0xySecret"
TOKEN = b64encode(f"ann:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, "S3cret%2FPassw0rd", KEY, PROXY_PASSWORD, TOKEN)


def answer_roles(connection):
    """Answer as the embedded teacher does, by Ollama's API or OpenAI's."""
    wanted = connection.body.get("format") or connection.body["response_format"]["json_schema"]["schema"]
    connection.whole(good(connection, json.loads(reply(connection.body["messages"], wanted))))


def echo(connection):
    """All that the client sent, as one JSON text."""
    return json.dumps({**connection.headers, "plain": SECRETS})


ECHOES = {
    "401": lambda connection: status(401, line({"error": echo(connection)}))(connection),
    "500": lambda connection: status(500, line({"error": {"message": echo(connection)}}))(connection),
    "text": lambda connection: status(400, echo(connection).encode(), "text/plain")(connection),
    "error line": lambda connection: connection.whole(line({"error": echo(connection)})),
    "redirect": lambda connection: status(302, b"", Location=f"http://x:{KEY}@e/{TOKEN}?{PASSWORD}#{KEY}")(connection),
    "type": lambda connection: connection.whole(b"{}", kind=f"text/{TOKEN}"),
    "encoding": lambda connection: connection.whole(b"{}", Content_Encoding=KEY),
    "no JSON": lambda connection: connection.whole(line({"a": 1}).replace(b"}", f', "{PASSWORD}": {KEY}'.encode())),
    "twice": lambda connection: connection.whole(f'{{"{KEY}": 1, "{KEY}": 2}}'.encode()),
    "head": lambda connection: connection.raw(f"HTTP/1.1 200 OK\r\n{TOKEN} {KEY}\r\n\r\n".encode()),
    "fields": lambda connection: connection.whole(line({"message": {"role": KEY, "content": {TOKEN: PASSWORD}}})),
    "answer": lambda connection: connection.whole(line(said(echo(connection)))),
    "answer in halves": lambda connection: connection.whole(
        line(said(f"see {KEY[:7]}", done=False)) + line(said(f"{KEY[7:]} and {PASSWORD}"))
    ),
}


def run(settings, out, capsys, caplog):
    """Run a stage; its error, and all that it leaves: output, log, files."""
    caplog.set_level(logging.INFO)  # what httpx says there, too
    error = None
    try:
        write_domain_specs(settings)
    except UserError as caught:
        error = caught
    captured = capsys.readouterr()
    files = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    return error, "\n".join([captured.out, captured.err, caplog.text, repr(error), files.decode("utf-8", "replace")])


def assert_no_secret(text):
    assert not [secret for secret in SECRETS if secret.casefold() in text.casefold()]


def settings_of(server, out, by, monkeypatch, api="ollama", **changes):
    """The secret stands in the flag's address, in the environment's address, or in the environment's key."""
    address = server.host.replace("//", f"//ann:{PASSWORD.replace('/', '%2F')}@")
    variable, key = {"ollama": ("OLLAMA_HOST", "OLLAMA_API_KEY"), "openai": ("OPENAI_BASE_URL", "OPENAI_API_KEY")}[api]
    if by == "environment":
        monkeypatch.setenv(variable, address)
    if by == "key":
        monkeypatch.setenv(key, KEY)
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:{PROXY_PASSWORD}@127.0.0.1:9")
    hosts = {"flag": [address], "environment": [], "key": [server.host]}[by]
    facts = {"teacher_api": api, "teacher_host": hosts, "teacher_retries": 0, "teacher_num_ctx": 4096}
    return default_settings(output_dir=str(out), domains=1, **{**facts, "teacher_model": "m:1", **changes})


@pytest.mark.parametrize("by", ["flag", "environment", "key"])
@pytest.mark.parametrize("api", ["ollama", "openai"])
@pytest.mark.parametrize("model", ["m:1", "auto"])
def test_a_secret_is_sent_and_left_nowhere(by, api, model, tmp_path, monkeypatch, capsys, caplog):
    with fault_server() as server:
        server.fault = Fault("", "", "", answer_roles)
        changes = {"teacher_model": model, "preferred_teacher": "m:1"}
        error, left = run(settings_of(server, tmp_path, by, monkeypatch, api, **changes), tmp_path, capsys, caplog)
        wanted = f"Bearer {KEY}" if by == "key" else f"Basic {TOKEN}"
        assert {headers["authorization"] for headers in server.seen_headers} == {wanted}
    assert error is None and server.host in left and (tmp_path / "d_01_domain_specs.jsonl").exists()
    assert_no_secret(left)


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("by", ["flag", "key"])
def test_a_server_that_repeats_secrets_is_not_repeated(name, by, tmp_path, monkeypatch, capsys, caplog):
    secrets = [KEY] if by == "key" else [PASSWORD, "S3cret%2FPassw0rd", TOKEN]
    with fault_server() as server:
        server.fault = Fault("", "", "", ECHOES[name])
        error, left = run(settings_of(server, tmp_path, by, monkeypatch), tmp_path, capsys, caplog)
    assert error is not None
    assert not [secret for secret in secrets if secret.casefold() in left.casefold()]


def test_a_version_and_names_that_repeat_secrets_are_not_kept(tmp_path, monkeypatch, capsys, caplog):
    with fault_server() as server:
        server.fault = Fault("", "", "", answer_roles)
        server.digest = f"digest {KEY}"
        server.routes["/api/version"] = whole(line({"version": f"1.0 {KEY}\x1b[2J"}), kind="application/json")
        error, left = run(settings_of(server, tmp_path, "key", monkeypatch), tmp_path, capsys, caplog)
    assert error is None and "1.0 ***" in left
    assert_no_secret(left)


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("by", ["flag", "environment", "key"])
def test_who_is_not_let_in_is_told_so_under_auto(code, by, tmp_path, monkeypatch, capsys, caplog):
    with fault_server() as server:
        server.routes["/api/tags"] = status(code)
        settings = settings_of(server, tmp_path, by, monkeypatch, teacher_model="auto")
        error, left = run(settings, tmp_path, capsys, caplog)
    assert str(error).startswith(f"{server.host} answers {code} (no)") and "put USER:PASSWORD@ before its name" in left
    assert_no_secret(left)


def test_a_redirect_carries_no_secret_to_another_host(tmp_path, monkeypatch, capsys, caplog):
    with fault_server() as server, fault_server() as other:
        for path in ("/api/version", "/api/tags"):
            server.routes[path] = status(307, b"", Location=f"{other.host}{path}")
        error, _ = run(settings_of(server, tmp_path, "flag", monkeypatch), tmp_path, capsys, caplog)
        assert "redirects to" in str(error) and other.seen_headers == []


def test_a_password_goes_to_its_host_alone(tmp_path, monkeypatch, capsys, caplog):
    with fault_server() as server, fault_server() as other:
        for each in (server, other):
            each.fault = Fault("", "", "", answer_roles)
        settings = settings_of(server, tmp_path, "flag", monkeypatch)
        settings = settings.changed(teacher_host=[*settings.server.teacher_host, other.host], domains=8)
        assert run(settings, tmp_path, capsys, caplog)[0] is None
        assert other.seen_headers and not any("authorization" in headers for headers in other.seen_headers)


def test_no_settings_show_a_password(capsys):
    argv = ["--print-config", "--teacher-host", f"http://ann:{PASSWORD}@gpu,http://gpu2"]
    with pytest.raises(SystemExit):
        load_settings(argv, "", "domains")
    shown = capsys.readouterr().out
    assert "http://***@gpu" in shown and "Passw0rd" not in shown and "S3cret" not in shown
