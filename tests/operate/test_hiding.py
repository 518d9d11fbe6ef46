"""What no log may hold is found in the environment and in addresses, in every form; failures are told without it."""

from pathlib import Path

import pytest

from schema_student.operate import secrets, tracebacks
from schema_student.operate.secrets import find_secrets, is_secret_name, secret_hider
from schema_student.operate.tracebacks import describe_failure

SECRET = """api_key MY_API_KEY ACCESS_KEY_ID accesskey private_key secretKey key the_key keys key_id token HF_TOKEN
    SECRET passwd password credentials authorization Authorisation""".split()
PLAIN = "tokens TOKENIZERS_PARALLELISM keyboard monkey key_values keyed OLLAMA_HOST pass author".split()


def test_names_of_secrets_are_told_from_others():
    assert [name for name in (*SECRET, *PLAIN) if is_secret_name(name)] == SECRET


@pytest.fixture
def environment(monkeypatch):
    def put(**variables):
        monkeypatch.setattr(secrets.os, "environ", variables)

    return put


@pytest.mark.parametrize(
    ("variables", "addresses", "found"),
    [
        ({"HF_TOKEN": " a, b "}, [], ["a, b", "a", "b"]),
        ({"OLLAMA_HOST": "ann:pw@gpu, 'bob@h' \t,\"h\""}, [], ["ann:pw", "pw", "bob", ""]),
        ({"NOTE": "http://u:p@h/x@y"}, [], ["u:p", "p"]),
        ({"PATH": "a@b", "EMAIL": "root@example.org"}, [], []),
        *(({name: "u:p@h"}, [], ["u:p", "p"]) for name in ("BASE_URL", "Proxy", "ENDPOINT", "PIP_INDEX")),
        ({}, ["HTTPS://ann:p/w@gpu:1", "gpu", "a b@c"], ["ann:p/w", "p/w"]),
    ],
)
def test_secrets_are_values_of_secret_names_and_users_with_passwords_of_addresses(
    variables, addresses, found, environment
):
    environment(**variables)
    assert list(find_secrets(addresses)) == found


@pytest.mark.parametrize(
    ("secret", "form"),
    [
        ('a b/"\\c', 'a b/"\\c'),
        ('a b/"\\c', "a%20b%2F%22%5Cc"),  # in an address
        ('a b/"\\cd', "YSBiLyJcY2Q="),  # as Basic authentication has it
        ('a b/"\\cd', "YSBiLyJcY2Q"),
        ('a b/"\\c', 'a b/\\"\\\\c'),  # in JSON
        ('a b/"\\c', 'a b/"\\\\c'),  # in a traceback
        ("a%20b%2F", "a b/"),
        ("a%20b%2F", "YSBiLw"),
    ],
)
def test_a_secret_is_hidden_in_every_form(secret, form, environment):
    environment(API_KEY=secret)
    assert secret_hider([])(f"before {form} after") == "before *** after"


def test_three_letters_are_no_secret_and_four_are(environment):
    environment(API_KEY="abc", HF_TOKEN="wxyz")
    assert secret_hider([])("abc wxyz http://u:p@h") == "abc *** http://***@h"


# ---- tracebacks


class Broken:
    def __repr__(self):
        raise ValueError


def fail(api_key="k3y-of-mine", **held):
    raise RuntimeError("401 for k3y-of-mine")


def told_of(monkeypatch, **held):
    """A failure of a function with these variables, which has two parts: its traceback, and the variables."""
    monkeypatch.setattr(tracebacks, "PACKAGE", str(Path(__file__).parent))
    with pytest.raises(RuntimeError) as caught:
        fail(held=held)
    error = caught.value.with_traceback(caught.tb.tb_next)
    text = describe_failure(error, lambda text: text.replace("k3y-of-mine", "***"))
    return text.split("\nlocal variables, the innermost function last:\n")


def test_a_failure_is_told_with_the_variables_of_our_own_functions(monkeypatch):
    told, variables = told_of(monkeypatch, word="k3y-of-mine")
    assert told.startswith("Traceback (most recent call last):\n") and told.endswith("\nRuntimeError: 401 for ***")
    line = fail.__code__.co_firstlineno + 1
    shown = "{'held': {'word': '***'}}"
    assert variables.split("\n") == [f"  test_hiding.py:{line} fail", "    api_key = ***", f"    held = {shown}"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((kind(range(21)), f"<{kind.__name__} of 21>") for kind in (list, tuple, set, frozenset)),
        *((kind(range(20)), repr(kind(range(20)))) for kind in (list, tuple, set)),
        (dict.fromkeys(range(21)), "<dict of 21>"),
        ("x" * 198, repr("x" * 198)),
        ("x" * 199, f"'{'x' * 195} ..."),
        ("y" * 190 + "k3y-of-mine", f"'{'y' * 190}***'"),  # hidden before it is cut
        (Broken(), "<Broken: no repr, ValueError>"),
    ],
)
def test_a_variable_is_one_line_and_a_large_one_its_size(value, shown, monkeypatch):
    def fail_with(held):
        raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        fail_with(value)
    monkeypatch.setattr(tracebacks, "PACKAGE", str(Path(__file__).parent))
    error = caught.value.with_traceback(caught.tb.tb_next)
    assert describe_failure(error, lambda text: text.replace("k3y-of-mine", "***")).endswith(f"\n    held = {shown}")


def test_frames_of_others_have_no_variables():
    with pytest.raises(RuntimeError) as caught:
        fail()
    assert describe_failure(caught.value, str).endswith("\nlocal variables, the innermost function last:")
