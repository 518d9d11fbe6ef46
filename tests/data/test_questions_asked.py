"""A question of a line of JSONL, the schema that it is about, and the same question put to the teacher."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from small_datasets import small_settings

from schema_student.core.errors import UserError
from schema_student.core.paths import paths
from schema_student.core.records import BuiltSchema, read_rows
from schema_student.core.settings import default_settings
from schema_student.data import questions
from schema_student.data.dataset import draw_date
from schema_student.data.questions import QuestionReader, ask_teacher, is_inline, read_day
from schema_student.student.ask import Question
from schema_student.teacher.faults import TeacherFailure

NUMBER = {"type": "integer"}


@pytest.fixture
def settings(tmp_path):
    return default_settings(output_dir=str(tmp_path), teacher_model="embedded")


def test_a_line_has_a_request_perhaps_a_schema_and_a_day(settings):
    reader = QuestionReader(settings, json.dumps(NUMBER))
    first = reader.read_line(b'\xef\xbb\xbf {"query": "q", "current_date": "2026-01-31", "more": 1}\n', "f:1")
    assert (first.schema.schema, first.request, first.day) == (NUMBER, "q", "2026-01-31")
    own = reader.read_line(b'{"query": "r", "schema": {"name": "f", "parameters": {"const": 1}}}', "f:2")
    assert (own.schema.schema, own.request) == ({"title": "f", "const": 1}, "r")
    assert own.day == Question(NUMBER, "r", None).day  # today


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "^f:1: not JSON: "),
        (b"[1]", "^f:1: a row is a JSON object$"),
        (b"{}", r"^f:1: no query in it: a row is \{query, schema\? or schema_id\?, current_date\?\}$"),
        (b'{"query": 3}', "^f:1: query must be text$"),
        (b'{"query": "q", "schema_id": 3}', "^f:1: schema_id must be text$"),
        (b'{"query": "q", "current_date": 3}', "^f:1: current_date must be text$"),
        (b'{"query": "q", "current_date": "soon"}', "^f:1: 'soon' is no day: give it as YYYY-MM-DD$"),
        (b'{"query": "\xff"}', "^f:1: not UTF-8 at byte 11$"),
        (b'{"query": "q", "schema": {"type": "x"}}', "^f:1: schema: not a JSON Schema: /type: "),
    ],
)
def test_a_line_that_is_no_question_is_named_with_its_place(line, said, settings):
    with pytest.raises(UserError, match=said):
        QuestionReader(settings, json.dumps(NUMBER)).read_line(line, "f:1")


def test_a_schema_is_inline_a_file_or_of_a_run_by_its_id(tmp_path):
    settings = small_settings(tmp_path)
    known = [row.schema_id for row in read_rows(paths(settings).schemas, BuiltSchema)]
    (tmp_path / "room.json").write_text(json.dumps(NUMBER))
    file = QuestionReader(settings, str(tmp_path / "room.json"))
    assert (file.schema().schema, file.name) == (NUMBER, "room") and file.schema(known[1]).schema["x-dsl"] == "query"
    assert QuestionReader(settings, " [1]").name == "schema" and is_inline(" {") and not is_inline("a{")
    assert (QuestionReader(settings).name, QuestionReader(settings, "", known[2]).name) == (known[0], known[2])
    title = QuestionReader(settings, "", known[2]).schema().schema["title"]
    assert title == QuestionReader(settings).schema(known[2]).schema["title"]
    with pytest.raises(
        UserError, match=rf"has 8 schemas: name one by --schema-id \({', '.join(known[:5])}, ...\), or give"
    ):
        QuestionReader(settings).schema()
    with pytest.raises(UserError, match=rf"has no schema '{known[0]}x'.*{known[0]}"):
        QuestionReader(settings).schema(known[0] + "x")
    with pytest.raises(UserError, match="has no schemas here: give --schema FILE or inline JSON, or another --run"):
        QuestionReader(default_settings(output_dir=str(tmp_path / "none"))).schema()


def test_a_day_is_read_as_it_is_written_elsewhere():
    assert (read_day(""), read_day("20260131")) == (None, "2026-01-31")


def test_the_teacher_is_asked_the_same_and_what_it_gives_is_judged(settings, monkeypatch):
    asked = []

    class Teacher:
        def ask_many(self, asks):
            asked.extend(asks)
            return [5, "x", TeacherFailure("answer", "tired")]

    @contextmanager
    def opened(given):
        assert given is settings
        yield Teacher()

    monkeypatch.setattr(questions, "open_teacher", opened)
    given = [Question(NUMBER, f"q{i}", day) for i, day in enumerate(("2026-01-31", None, None))]
    right, wrong, none = ask_teacher(given, settings)
    assert asked == [
        ("answer", {"schema": NUMBER, "query": question.request, "current_date": question.day}) for question in given
    ]
    assert (right.value, right.valid, right.text, right.tokens, right.seconds) == (5, True, "5", 0, 0.0)
    assert (wrong.value, wrong.valid, wrong.text, wrong.violations[0].keyword) == ("x", False, '"x"', "type")
    assert (none.value, none.valid, none.text, none.tokens) == (None, False, "", 0)
    assert "the teacher gave no usable answer: tired" in repr(none)


def test_a_seed_and_a_key_have_their_day_in_every_version():
    """Or the rows of a data set that goes on would have other dates than those before."""
    settings = default_settings(seed=13, date_start="2024-01-01", date_end="2026-12-31")
    assert (draw_date(settings, "s"), draw_date(settings, "s", "q")) == ("2024-02-20", "2025-11-05")
    assert draw_date(settings.changed(seed=99), "s") == "2025-04-07"
