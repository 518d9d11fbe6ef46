"""Words of others reach a person as text: nothing steers the terminal, no password of an address is seen."""

from __future__ import annotations

import pytest

from schema_student.core.cleaning import for_terminal, hide_address, hide_secrets, hide_userinfo, one_line
from schema_student.core.log import log

STEERING = ["\x1b[31m", "\x9b2J", "\u202e", "\u2066", "\u200b", "\r", "\x00", "\x07", "\ud800", "\ue000"]


@pytest.mark.parametrize("mark", STEERING)
def test_nothing_that_steers_a_terminal_is_left(mark, capsys):
    assert one_line(f"a{mark}b\n c").isprintable()
    log.info(f"a{mark}b\n\tc")
    shown = capsys.readouterr().out
    assert (
        mark[0] not in shown
        and shown.endswith("b\n\tc\n")
        and for_terminal("\u00e9\u4e2d\u0938") in "\u00e9\u4e2d\u0938"
    )


def test_words_have_an_end():
    assert one_line("x" * 9999) == "x" * 296 + " ..."
    assert one_line("x" * 9999, 20) == "x" * 16 + " ..."
    assert one_line("  a \n b ") == "a b" and one_line("x" * 300) == "x" * 300
    assert one_line(" " * 1199 + "x") == "x" and one_line(" " * 1200 + "x") == ""  # what follows is not looked at


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://ann:pw@gpu:1/x, ok", "see http://***@gpu:1/x, ok"),
        ("socks5://tok@p", "socks5://***@p"),
        ("http://ann:p@w@gpu", "http://***@gpu"),
        ("mail ann@gpu, http://gpu/a@b", "mail ann@gpu, http://gpu/a@b"),
    ],
)
def test_an_address_is_shown_without_user_and_password(text, shown, capsys):
    assert hide_userinfo(text) == shown
    log.error(text)
    assert capsys.readouterr().err == shown + "\n"


def test_secrets_are_hidden_in_letters_of_any_case_the_longer_first():
    assert hide_secrets("a SECRET1 secret b", ["secret", "secret1"]) == "a *** *** b"
    assert hide_secrets("a.c abc", ["a.c"]) == "*** abc" and hide_secrets("abc", []) == "abc"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://ann:p@/w:1@gpu:11434", "http://***@gpu:11434"),
        ("ann:pw@gpu:1", "***@gpu:1"),
        ("http://gpu:11434", "http://gpu:11434"),
        ("gpu", "gpu"),
    ],
)
def test_one_address_is_shown_without_what_stands_before_its_last_at(address, shown):
    assert hide_address(address) == shown
