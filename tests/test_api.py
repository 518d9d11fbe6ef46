"""The names that a notebook or another program imports: Student, compile_schema, judge, read_run."""

import json
import os
import subprocess
import sys
from datetime import date

import pytest

import schema_student
from schema_student import Student, compile_schema, judge
from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_json
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.schema.prompts import render_prompt
from schema_student.student import generation
from schema_student.student.loading import attach_adapter, load_student, write_adapter_record

FLIGHT = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "adults": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def embedded():
    return Student.load("embedded")


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    ).stdout


def test_names_come_without_torch_until_a_student_is_loaded():
    code = "import sys; from schema_student import *; print(Student, judge, compile_schema, 'torch' in sys.modules)"
    assert run_python(code).split()[-1] == "False"


def test_all_names_can_be_imported_and_are_listed():
    for name in schema_student.__all__:
        assert getattr(schema_student, name).__name__ == name and name in dir(schema_student)
    with pytest.raises(AttributeError, match="no attribute 'Teacher'"):
        _ = schema_student.Teacher


def test_a_text_is_judged_against_a_schema():
    verdict = judge('{"city": "Oslo", "adults": 0}', compile_schema(FLIGHT))
    assert not verdict.schema_valid and verdict.violations[0].path == "/adults"


def test_the_embedded_student_answers_a_request(embedded):
    answer = embedded.ask(FLIGHT, "a flight to Oslo for 2 adults", "2026-01-31")
    assert answer.valid and answer.value == json.loads(answer.text) and not answer.violations
    assert answer.tokens > 5 and answer.seconds > 0


def test_a_schema_may_be_compiled_before(embedded):
    plain, compiled = (
        embedded.ask(schema, "a flight to Oslo", "2026-01-31") for schema in (FLIGHT, compile_schema(FLIGHT))
    )
    assert plain.text == compiled.text


def test_an_invalid_answer_says_why(embedded):
    nothing = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 0}}, "required": ["city"]}
    answer = embedded.ask(nothing, "a flight to Oslo", "2026-01-31")
    assert not answer.valid and answer.violations


def asked_prompts(student, monkeypatch, *question):
    """The prompts that reach the model when it is asked."""
    seen = []

    def keep(student, prompts, *given, **options):
        seen.extend(prompts)
        return [[generation.Generation("{}", 1, True, 0.0)]]

    monkeypatch.setattr(generation, "generate", keep)
    student.ask(*question)
    return seen


def test_a_student_reads_the_prompt_that_evaluation_renders(embedded, monkeypatch):
    prompts = asked_prompts(embedded, monkeypatch, FLIGHT, "to Oslo", date(2026, 1, 31))
    assert prompts == [render_prompt(FLIGHT, "to Oslo", "2026-01-31", default_settings().prompt.schema_rendering)]


def test_without_a_date_a_student_is_asked_today(embedded, monkeypatch):
    assert f"Date: {date.today()}\n" in asked_prompts(embedded, monkeypatch, FLIGHT, "to Oslo")[0]


def test_a_prompt_without_room_for_an_answer_is_refused(embedded):
    with pytest.raises(UserError, match=r"the prompt has \d+ tokens, of \d+ that fit"):
        embedded.ask(FLIGHT, "flights to Oslo " * 2000)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A fresh adapter of the embedded student in a run that reads schemas as JSON."""
    settings = resolve_auto(default_settings(base_model="embedded", schema_rendering="json"), "embedded")
    student = attach_adapter(load_student(settings), settings)
    folder = tmp_path_factory.mktemp("run") / "checkpoint-final"
    student.model.save_pretrained(folder)
    write_adapter_record(folder, student)
    write_json(folder.parent / "run_config.json", {"settings": settings.flat()})
    return folder


def test_an_adapter_is_loaded_with_its_base_and_reads_prompts_as_its_run_did(adapter, monkeypatch):
    student = Student.load(adapter)
    assert student.adapter == str(adapter) and student.choice.kind == "embedded"
    prompts = asked_prompts(student, monkeypatch, FLIGHT, "to Oslo", "2026-01-31")
    assert prompts == [render_prompt(FLIGHT, "to Oslo", "2026-01-31", "json")]
    student = Student.load(adapter, schema_rendering="none")
    prompts = asked_prompts(student, monkeypatch, FLIGHT, "to Oslo", "2026-01-31")
    assert prompts == [render_prompt({}, "to Oslo", "2026-01-31", "none")]
    assert Student.load(adapter, schema_rendering="compact").settings.prompt.schema_rendering == "compact"


def test_an_adapter_of_the_embedded_student_finds_it_after_the_checkout_was_moved(adapter, tmp_path):
    record = json.loads((adapter / "schema_student.json").read_text())
    (adapter / "schema_student.json").write_text(json.dumps({**record, "base": str(tmp_path / "gone")}))
    assert Student.load(adapter).choice.kind == "embedded"


def test_an_adapter_without_a_record_of_its_base_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="which names the base of an adapter"):
        Student.load(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        Student.load(tmp_path / "nothing")
