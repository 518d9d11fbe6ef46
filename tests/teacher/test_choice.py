"""Which teacher: one that is named, else the best that this machine has."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_ollama import ASK, VERDICT, after_probe, fake_ollama, fake_settings
from fault_server import fault_server, status, whole

from schema_student.core.settings import default_settings
from schema_student.teacher.addresses import APIS
from schema_student.teacher.choice import not_answering, resolve_teacher
from schema_student.teacher.client import Teacher, open_teacher
from schema_student.teacher.embedded.server import serve
from schema_student.teacher.faults import ConnectFault, ProxyFault, TeacherError

pytestmark = pytest.mark.usefixtures("nothing_named")


def test_auto_takes_the_embedded_teacher_where_no_ollama_answers(tmp_path, capsys):
    settings = default_settings(output_dir=str(tmp_path))
    choice = resolve_teacher(settings)
    assert choice.embedded and "no Ollama answers" in choice.reason
    with open_teacher(settings) as t:
        assert t.ask("domain_spec", {"index": 0})["schema_id"]
        assert t.info["format"] == "honored" and isinstance(t, Teacher)
    assert "teacher: embedded rule-based teacher (not an LLM) (auto" in capsys.readouterr().out


def test_auto_takes_the_preferred_model_where_ollama_has_it(tmp_path, monkeypatch):
    with fake_ollama(lambda body, n: 500, models=("gpt-oss:120b", "m:1")) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.host)
        assert resolve_teacher(default_settings()).model == "gpt-oss:120b"
        with pytest.raises(TeacherError, match=r"has not got other:7b .*get it there, or name another"):
            resolve_teacher(default_settings(preferred_teacher="other:7b"))
        monkeypatch.delenv("OLLAMA_HOST")
        monkeypatch.setitem(APIS, "ollama", replace(APIS["ollama"], address=fake.host))
        choice = resolve_teacher(default_settings(preferred_teacher="other:7b"))
        assert choice.embedded and "has not got other:7b" in choice.reason


@pytest.mark.parametrize("by", ["flag", "environment"])
@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "A.invalid", ":9", "http://127.0.0.1:9,127.0.0.1:9"])
def test_a_named_host_that_does_not_answer_is_an_error_under_auto(by, host, tmp_path, monkeypatch):
    if by == "environment":
        monkeypatch.setenv("OLLAMA_HOST", host)
    hosts = host.split(",") if by == "flag" else []
    with pytest.raises(TeacherError, match=r"Ollama does not answer at .*start it .*--teacher-model embedded"):
        resolve_teacher(default_settings(output_dir=str(tmp_path), teacher_host=hosts))


def test_of_several_named_hosts_one_that_answers_is_enough(tmp_path, monkeypatch):
    with fake_ollama(lambda body, n: 500, models=("gpt-oss:120b",)) as fake:
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:9, {fake.host}")
        choice = resolve_teacher(default_settings())
        assert choice.model == "gpt-oss:120b" and len(choice.hosts) == 2 and fake.host in choice.reason
        monkeypatch.setenv("OLLAMA_HOST", f"{fake.host}, 127.0.0.1:9")
        assert resolve_teacher(default_settings()).reason == f"auto: Ollama at {fake.host} has it"


@pytest.mark.parametrize(
    "send",
    [whole(b"<html>", kind="text/html"), status(401), status(403), status(404), status(500), status(302, b"")],
    ids=["a web page", "401", "403", "404", "500", "302"],
)
def test_what_listens_at_ollamas_own_address_and_fails_is_an_error_under_auto(send, tmp_path, monkeypatch):
    with fault_server() as server:
        server.routes["/api/tags"] = send
        monkeypatch.setitem(APIS, "ollama", replace(APIS["ollama"], address=server.host))
        with pytest.raises(TeacherError, match=rf"{server.host}.*--teacher-model embedded"):
            resolve_teacher(default_settings())


def test_the_embedded_teacher_does_not_care_for_the_environment(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "tcp://no:address")
    monkeypatch.setenv("OLLAMA_API_KEY", "two words")
    assert resolve_teacher(default_settings(teacher_model="embedded")).embedded


def test_a_name_without_tag_means_latest(tmp_path):
    chat = after_probe(lambda body, n: VERDICT)
    with (
        fake_ollama(chat, models=("m:latest",)) as fake,
        open_teacher(fake_settings(fake, tmp_path, teacher_model="m")) as t,
    ):
        assert t.ask(*ASK) == VERDICT


def test_a_named_teacher_never_falls_back(tmp_path, monkeypatch):
    settings = default_settings(output_dir=str(tmp_path), teacher_model="gpt-oss:120b")
    assert resolve_teacher(settings).model == "gpt-oss:120b"
    with (
        pytest.raises(TeacherError, match=r"does not answer at .*ollama serve.*--teacher-model embedded"),
        open_teacher(settings),
    ):
        pass
    pulled = pytest.raises(TeacherError, match="run `ollama pull gpt-oss:120b`")
    with serve() as address:
        monkeypatch.setenv("OLLAMA_API_KEY", address.authorization.removeprefix("Bearer "))
        with pulled, open_teacher(settings.changed(teacher_host=[address.url])):
            pass


@pytest.mark.parametrize(
    "text",
    [
        "LLM_MODEL=qwen3:8b",
        "# mine\nexport LLM_MODEL='qwen3:8b'\n",
        "model: qwen3:8b",
        "qwen3:8b\n",
        '{"model": "qwen3:8b"}',
        '{"LLM_MODEL": "qwen3:8b"}',
        "other: 1\nLLM_Model = qwen3:8b # mine",
    ],
)
def test_llmrc_names_a_teacher(text, tmp_path):
    (tmp_path / ".llmrc").write_text(text)
    choice = resolve_teacher(default_settings())
    assert (choice.model, choice.reason, choice.api) == ("qwen3:8b", "named by .llmrc", "ollama")


@pytest.mark.parametrize("text", ["two words", "a\nb", "{}", "other=1", "", "# nothing"])
def test_llmrc_that_names_none_is_passed_over(text, tmp_path):
    (tmp_path / ".llmrc").write_text(text)
    assert resolve_teacher(default_settings()).embedded


def test_llmrc_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / ".llmrc").write_text("{broken")
    with pytest.raises(
        TeacherError, match=r"^\.llmrc: cannot be read \(.*\); put LLM_MODEL=<model id> there, or remove"
    ):
        resolve_teacher(default_settings())


def test_a_server_that_is_not_there_is_named_with_why_and_how_to_start_one():
    advice = "start it (`ollama serve`), name another with --teacher-host, or do without: --teacher-model embedded"
    for what, why in (("h does not answer (refused (61))", "refused (61)"), ("gone", "gone")):
        assert str(not_answering("ollama", "http://h", ConnectFault(what))) == (
            f"Ollama does not answer at http://h ({why}): {advice}"
        )
    proxied = str(not_answering("ollama", "http://h", ProxyFault("the proxy p is away")))
    assert proxied.startswith("the proxy p is away: ") and proxied.endswith("; or do without: --teacher-model embedded")


def test_a_choice_says_what_decides_its_answers(nothing_named):
    embedded = resolve_teacher(default_settings(teacher_model="embedded"))
    assert (embedded.model, embedded.reason, embedded.hosts) == ("embedded-teacher", "named by --teacher-model", ())
    assert embedded.stamp.startswith("embedded-teacher@") and len(embedded.stamp) == len("embedded-teacher@") + 16
    assert embedded.display_name == "embedded rule-based teacher (not an LLM)"
    named = resolve_teacher(default_settings(teacher_model="m:1"))
    assert (named.stamp, named.display_name, named.embedded) == ("m:1", "m:1", False)


def test_the_flag_beats_the_environment_which_beats_llmrc(tmp_path, monkeypatch):
    (tmp_path / ".llmrc").write_text("model: third")
    monkeypatch.setenv("LLM_MODEL", "second")
    assert resolve_teacher(default_settings()).model == "second"
    assert resolve_teacher(default_settings(teacher_model="first")).model == "first"
    for name in ("embedded", "embedded-teacher"):
        assert resolve_teacher(default_settings(teacher_model=name)).embedded


def test_a_host_that_is_no_ollama_is_named(tmp_path):
    for host in ("http://127.0.0.1:notaport", "http://[bad"):
        settings = default_settings(output_dir=str(tmp_path), teacher_model="m", teacher_host=[host])
        with pytest.raises(TeacherError), open_teacher(settings):
            pass


def test_a_proxy_of_the_environment_does_not_see_loopback(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with open_teacher(default_settings(output_dir=str(tmp_path), teacher_model="embedded")) as t:
        assert t.ask("domain_spec", {"index": 1})["fields"]
