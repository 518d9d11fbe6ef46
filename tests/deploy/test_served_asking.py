"""A student that is served here is asked there, with the answers of the loaded one; another server is passed over."""

import json
import logging
import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import tiny
from served import served

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_object, write_json
from schema_student.deploy.serving import client
from schema_student.deploy.serving.client import ask_served, find_obstacle
from schema_student.deploy.serving.running import find_running, note_running
from schema_student.student.ask import Asking, Question

NUMBER = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}}, "required": ["n"], "additionalProperties": False}
FLAG = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
NEVER = {"type": "object", "allOf": [False]}
DAY = "2026-01-31"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tiny.tiny_settings(tmp_path_factory.mktemp("base"), max_new_tokens=16, max_seq_length=512)


@pytest.fixture(scope="module")
def student(settings):
    return tiny.load_student(settings)


@contextmanager
def noted(student, settings, **changes):
    """Serve a student, and note it as `serve` does; yields the note."""
    pytest.importorskip("uvicorn")
    from schema_student.deploy.serving.server import Serving, describe_serving

    with served(student, slots=4, **changes) as address:
        port, facts = urlsplit(address).port, describe_serving(student, Serving("student", **changes), address)
        with note_running(settings, port, facts):
            yield Path(settings.run.output_dir) / "serving" / f"{port}.json"


@pytest.fixture(scope="module")
def note(student, settings):
    with noted(student, settings, key="s3cret") as note:
        yield note


@pytest.fixture
def said(caplog):
    """What is said of servers that are passed over."""
    caplog.set_level(logging.INFO, "schema_student")
    return caplog


@pytest.mark.parametrize(
    "asking",
    [
        Asking(),
        Asking(repairs=1),
        Asking(constrained=True),
        Asking(samples=3),
        Asking(samples=4, vote=True, constrained=True),
    ],
    ids=["greedy", "repaired", "constrained", "sampled", "voted"],
)
def test_a_served_student_answers_as_the_loaded_one(student, settings, note, asking):
    questions = [Question(schema, f"ask {i}", DAY) for i in range(5) for schema in (NUMBER, FLAG)]
    questions += [Question(NUMBER, "long " * 500, DAY), Question(FLAG, "no text \udcff", DAY)]
    here = student.ask_many(questions, asking)
    there = ask_served(find_running(settings), questions, settings, asking)
    assert [replace(each, seconds=0.0) for each in there] == [replace(each, seconds=0.0) for each in here]
    assert [bool(each.problem and not each.tokens) for each in here[-2:]] == [True, True]


def test_a_schema_that_cannot_constrain_is_a_problem_of_its_own_answer(student, settings, note):
    questions = [Question(NEVER, "x", DAY), Question(NUMBER, "two", DAY)]
    refused, answered = ask_served(find_running(settings), questions, settings, Asking(constrained=True))
    (local, _) = student.ask_many(questions, Asking(constrained=True))
    assert refused.problem and local.problem and local.problem in refused.problem and answered.tokens


def test_a_note_is_read_by_its_owner_alone_and_goes_with_its_server(student, settings):
    with noted(student, settings, key="another") as note:
        assert stat.S_IMODE(note.stat().st_mode) == 0o600 and read_object(note)["key"] == "another"
    assert not note.exists()


def changed(folder, note, **facts):
    """Write a note that says otherwise into another output folder."""
    write_json(folder / "serving" / note.name, read_object(note) | facts)


OTHERS = {
    "its server has ended": {"pid": 2**22 + 1},
    "its server has the adapter other": {"adapter": "other"},
    "the base was changed": {"base_files": {"model.safetensors": [1, 2]}},
    "--constrained asks for that": {"constrained": True},
    "its server has max_new_tokens 3": {"settings": {"max_new_tokens": 3}},
    "another server answers there": {"meta": {"base_digest": "other", "adapter_digest": None}},
    "it does not describe a server": {"url": "http://example.com:80"},
}


@pytest.mark.parametrize("reason", OTHERS)
def test_a_server_of_another_student_is_passed_over_with_the_reason(settings, note, tmp_path, said, reason):
    facts = dict(OTHERS[reason])
    if "settings" in facts:
        facts["settings"] = read_object(note)["settings"] | facts["settings"]
    changed(tmp_path, note, **facts)
    assert find_running(settings.changed(output_dir=str(tmp_path))) is None
    (line,) = said.messages
    assert reason in line and str(note.name) in line


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 3, "pid": "x"}', '{"url": "http://127.0.0.1:x"}'])
def test_a_note_that_is_none_is_passed_over(settings, tmp_path, said, text):
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "1.json").write_text(text)
    assert find_running(settings.changed(output_dir=str(tmp_path))) is None
    assert "it does not describe a server" in said.text


def test_a_port_on_which_nothing_answers_is_passed_over(settings, note, tmp_path, said):
    changed(tmp_path, note, url="http://127.0.0.1:1")
    assert find_running(settings.changed(output_dir=str(tmp_path))) is None
    assert "nothing answers there" in said.text


def test_what_a_server_cannot_do_is_told(settings):
    assert "--explain" in find_obstacle(Asking(explain=True), settings)
    hot = settings.changed(sample_temperature=3.0)
    assert "--sample-temperature" in find_obstacle(Asking(samples=2), hot) and not find_obstacle(Asking(), hot)


def test_a_busy_server_is_asked_again_and_a_dead_one_is_an_error(settings, note, monkeypatch):
    running, answers = find_running(settings), [(429, {"error": {"message": "busy"}})]
    ask = client.request
    monkeypatch.setattr(client, "PAUSE", 0.0)
    monkeypatch.setattr(client, "request", lambda *given: answers.pop() if answers else ask(*given))
    (answer,) = ask_served(running, [Question(NUMBER, "two", DAY)], settings, Asking())
    assert answer.tokens and not answers
    with pytest.raises(UserError, match="answers 401: the key is missing"):
        ask_served(replace(running, key="no"), [Question(NUMBER, "two", DAY)], settings, Asking())
    with pytest.raises(UserError, match=r"failed .*: ask again"):
        ask_served(replace(running, port=1), [Question(NUMBER, "two", DAY)], settings, Asking())


VERB = """
import sys
from schema_student.cli.main import VERBS
from schema_student.core.log import log_to_terminal
log_to_terminal()
VERBS["ask"](sys.argv[1:])
assert "torch" not in sys.modules, "asking a server needs no torch"
"""


def test_the_verb_asks_the_server_in_the_order_of_its_rows_and_without_torch(student, settings, note):
    words = ["--output-dir", settings.run.output_dir, "--base-model", settings.student.base_model]
    words += ["--dtype", "float32", "--max-new-tokens", "16", "--max-seq-length", "512", "--constrained"]
    words += ["--schema", json.dumps(NUMBER), "--date", DAY, "--schema-rendering", settings.prompt.schema_rendering]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    lines = "".join(json.dumps({"query": f"ask {i}"}) + "\n" for i in range(10))
    made = subprocess.run(
        [sys.executable, "-c", VERB, *words], input=lines, capture_output=True, text=True, env=environment, timeout=60
    )
    assert "served at http://127.0.0.1:" in made.stderr, made.stderr
    found = [json.loads(line) for line in made.stdout.splitlines()]
    known = student.ask_many([Question(NUMBER, f"ask {i}", DAY) for i in range(10)], Asking(constrained=True))
    assert [each["text"] for each in found] == [each.text for each in known] and "Traceback" not in made.stderr
