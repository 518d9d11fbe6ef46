"""A full disk is told from other errors, by its number or in the words of who writes."""

import errno
import sqlite3
from pathlib import Path

import pytest

from schema_student.core import resources
from schema_student.core.errors import UNWRITABLE, SettingsError, UserError, is_of_full_disk


def caused(error, of):
    error.__cause__ = of
    return error


def in_context(error, of):
    error.__context__ = of
    return error


FULL = OSError(errno.ENOSPC, "no space")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (FULL, True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EFBIG, "limit"), True),
        (OSError(errno.EACCES, "denied"), False),
        (RuntimeError("I/O error: x (os error 28)"), True),
        (RuntimeError("I/O error: x (os error 122)"), True),
        (RuntimeError("I/O error: x (os error 27)"), True),
        (RuntimeError("I/O error: x (os error 2)"), False),
        (sqlite3.OperationalError("database or disk is full"), True),
        (ValueError("8 requested and 4 written"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672]"), True),
        (RuntimeError("basic_ios::clear: iostream error"), True),
        (caused(ValueError("a"), FULL), True),
        (in_context(ValueError("a"), caused(ValueError("b"), FULL)), True),
        (in_context(ValueError("a"), KeyError("b")), False),
        (None, False),
    ],
)
def test_a_full_disk_is_told_wherever_it_stands_in_a_chain_of_errors(error, full):
    assert is_of_full_disk(error) is full


def test_what_a_person_mends_has_an_exit_code():
    assert (UserError("x").exit_code, SettingsError("x").exit_code) == (1, 2)
    names = "EACCES EDQUOT EEXIST EISDIR ELOOP ENAMETOOLONG ENOSPC ENOTDIR EPERM EROFS"
    assert {getattr(errno, name) for name in names.split()} == UNWRITABLE


def test_bases_that_were_fetched_lie_in_the_checkout_or_where_an_installed_command_runs(monkeypatch):
    assert resources.models_dir() == Path(__file__).parents[2] / "models"
    monkeypatch.setattr(resources, "IS_INSTALLED", True)
    assert resources.models_dir() == Path("models")
    assert resources.DATA_DIR.joinpath("operators.json").is_file()
    assert resources.EMBEDDED_STUDENT.joinpath("config.json").is_file()
