"""The verb chat: through a pipe it answers in plain lines; at a terminal it needs prompt_toolkit."""

import importlib.util
import io
import json
import sys
from types import SimpleNamespace

import pytest
from schema_examples import CITY

from schema_student.cli.main import VERBS
from schema_student.core.errors import UserError
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.student import loading
from schema_student.student.loading import load_student

INLINE = ["--schema", json.dumps(CITY)]


@pytest.fixture
def student(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loaded = load_student(default_settings(base_model="embedded"))
    loaded.settings = resolve_auto(default_settings(), "embedded")
    monkeypatch.setattr(loading, "load_student", lambda *_, **__: loaded)


def test_a_pipe_is_answered_in_plain_lines_with_all_else_on_standard_error(student, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'to Oslo\n/constrained\n/save {"city": "Bonn"}\n')))
    VERBS["chat"]([*INLINE, "--base-model", "embedded", "--date", "2026-01-31", "--constrained"])
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert json.loads("".join(lines[:3])) == {"city": "Oslo"} and lines[3].startswith("valid  ")
    assert lines[4] == "constrained decoding is off" and lines[5].startswith("saved: outputs/chat/student.jsonl")
    assert "\x1b" not in said.out and "student: embedded student" in said.err
    assert json.loads((tmp_path / "outputs/chat/student.jsonl").read_text())["current_date"] == "2026-01-31"


def test_a_terminal_without_prompt_toolkit_is_told_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(sys, name, SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "prompt_toolkit" else "there")
    with pytest.raises(UserError, match=r"pip install 'schema-student\[chat\]'"):
        VERBS["chat"]([*INLINE, "--base-model", "embedded"])


def test_a_dry_run_names_what_would_be_written(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    VERBS["chat"]([*INLINE, "--base-model", "embedded", "--dry-run"])
    assert "would write outputs/chat/student.jsonl (absent)" in capsys.readouterr().out
