"""Where servers are: every form of address that Ollama takes, and what is sent to each alone."""

from __future__ import annotations

import pytest

from schema_student.core.settings import SettingsError, default_settings
from schema_student.teacher.addresses import find_addresses, read_addresses
from schema_student.teacher.faults import TeacherError

pytestmark = pytest.mark.usefixtures("nothing_named")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("127.0.0.1:11435", "http://127.0.0.1:11435"),
        ("localhost/", "http://localhost:11434"),
        (":8200", "http://127.0.0.1:8200"),
        (":80", "http://127.0.0.1"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # what a server listens at
        ("0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("::", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::]:8200", "http://[::1]:8200"),
        ("2001:db8::5", "http://[2001:db8::5]:11434"),
        ("http://[2001:db8::5]:11434", "http://[2001:db8::5]:11434"),
        ("http://gpu", "http://gpu"),
        ("http://gpu:80/", "http://gpu"),
        ("https://gpu", "https://gpu"),
        ("https://gpu/ollama/", "https://gpu/ollama"),
        ("gpu/ollama", "http://gpu:11434/ollama"),
        ("gpu:11434/ollama/", "http://gpu:11434/ollama"),
        ("HTTP://GPU:11434", "http://gpu:11434"),
        ("my_host", "http://my_host:11434"),
        ("m\u00fcller.de", "http://xn--mller-kva.de:11434"),
        ("ollama.com", "https://ollama.com"),
        ("ann:pw@gpu", "http://gpu:11434"),
    ],
)
def test_an_address_is_read_as_ollama_reads_it(text, url):
    assert str(read_addresses("ollama", [text])[0]) == url


@pytest.mark.parametrize(
    "text", ["tcp://gpu:1", "gpu:99999", "gpu:port", "http//gpu", "http:/gpu", "a b", "http://[bad", "gpu?x=1", "a:b:c"]
)
def test_what_is_no_address_is_refused_with_what_one_is(text):
    with pytest.raises(TeacherError, match=r"is no address of a server .*check --teacher-host and OLLAMA_HOST"):
        read_addresses("ollama", [text])


def test_an_address_of_the_other_api_says_which():
    with pytest.raises(TeacherError, match=r"leave /v1 off, or use --teacher-api openai"):
        read_addresses("ollama", ["http://gpu:11434/v1"])
    assert str(read_addresses("openai", ["http://gpu:8000/v1/"])[0]) == "http://gpu:8000/v1"


def test_the_environment_may_name_several_and_quote_them(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", '"A:11434, B:11435",')
    assert [each.url for each in find_addresses("ollama", [])] == ["http://a:11434", "http://b:11435"]
    assert [each.url for each in find_addresses("ollama", ["c"])] == ["http://c:11434"]


def test_a_password_is_sent_as_basic_authentication_and_comes_before_a_key(monkeypatch):
    monkeypatch.setenv("OLLAMA_API_KEY", "k1,k2")
    first, second = read_addresses("ollama", ["http://ann:p%40ss%2C@gpu", "b"])
    assert (first.authorization, second.authorization) == ("Basic YW5uOnBAc3Ms", "Bearer k2")
    assert read_addresses("ollama", ["http://token@gpu"])[0].authorization == "Basic dG9rZW46"


@pytest.mark.parametrize("text", ["http://ann:s3cret@gpu", "http://s3cret@gpu", "ann:s3cret@gpu:1"])
def test_an_address_is_printed_without_its_password(text):
    (address,) = read_addresses("ollama", [text])
    assert "s3cret" not in f"{address} {address!r}" and "czNjcmV0" not in repr(address)


@pytest.mark.parametrize(
    "text",
    ["http://ann:s3/cret@gpu", "http://ann:s3cret", "ann:s3?cret@gpu", "http://ann:1/s3cret@gpu", "x://a:s3@gpu"],
)
def test_no_error_about_an_address_shows_what_may_be_a_password(text):
    with pytest.raises(TeacherError) as caught:
        read_addresses("ollama", [text])
    assert "s3" not in str(caught.value) and "cret" not in str(caught.value)


@pytest.mark.parametrize("key", ["k\u00e9y", "two words", "line\nline", "\x1b[31m"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key, monkeypatch):
    monkeypatch.setenv("OLLAMA_API_KEY", key)
    with pytest.raises(TeacherError, match="OLLAMA_API_KEY has a key that HTTP cannot carry") as caught:
        read_addresses("ollama", ["gpu"])
    assert key not in str(caught.value)


def test_settings_are_shown_without_passwords():
    hosts = ["http://ann:s3cret@gpu:1", "bob:s3/cret@b", "http://ann:s3", "http://ok:11434/x", "ok:1"]
    shown = default_settings(teacher_host=hosts).flat()["teacher_host"]
    assert shown == ["http://***@gpu:1", "***@b", "http://ann:***", "http://ok:11434/x", "ok:1"]
    with pytest.raises(SettingsError) as caught:
        default_settings(teacher_host="http://ann:s3/cret@gpu")
    assert "cret" not in str(caught.value)
