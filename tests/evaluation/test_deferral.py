"""What the student is not sure of a teacher answers: counted, marked, and never lost where the teacher fails."""

import math
from unittest.mock import Mock

import pytest
from schema_examples import CITY

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.settings import default_settings
from schema_student.evaluation import deferral
from schema_student.evaluation.confidence import Calibration
from schema_student.student.ask import Answer, Question
from schema_student.student.sureness import Sureness
from schema_student.teacher.faults import TeacherError


def answer(city, p, valid=True):
    return Answer({"city": city}, valid, (), "", 0, 0.0, sureness=Sureness(math.log(p), ()))


QUESTIONS = [Question(CITY, text) for text in ("sure", "unsure", "broken")]
ANSWERS = [answer("Oslo", 0.9), answer("Rome", 0.4), answer("Bonn", 0.99, valid=False)]


@pytest.fixture
def made(monkeypatch):
    """A deferral below 0.7, and the questions that reach its teacher, which answers Paris, or fails by `fails`."""
    asked, fails = [], {}

    def ask(questions, settings):
        asked.extend(each.request for each in questions)
        if "all" in fails:
            raise TeacherError("nobody answers")
        return [Answer({"city": "Paris"}, each.request not in fails, (), "", 0, 0.0) for each in questions]

    monkeypatch.setattr(deferral, "ask_teacher", ask)
    settings = default_settings(teacher_model="embedded-teacher")
    return deferral.Deferral(settings, 0.7, Calibration(0.0, 1.0)), asked, fails


def test_only_what_is_below_the_bound_or_not_valid_reaches_the_teacher(made, capsys):
    settle, asked, _ = made
    found = settle.settle(QUESTIONS, ANSWERS)
    assert asked == ["unsure", "broken"]
    assert [each.value["city"] for each in found] == ["Oslo", "Paris", "Paris"]
    assert [each.by for each in found] == ["student", "embedded-teacher", "embedded-teacher"]
    assert [each.confidence for each in found] == pytest.approx([0.9, 0.4, 0.0])
    assert capsys.readouterr().out == "deferred 2 of 3 requests to embedded-teacher\n"


def test_an_answer_at_the_bound_is_the_students(made):
    settle, asked, _ = made
    (found,) = settle.settle(QUESTIONS[:1], [answer("Oslo", 0.7)])
    assert (found.confidence, found.by, asked) == (0.7, "student", [])
    assert settle.confidence(True, None) == 0.0  # of an answer whose tokens were not measured


def test_where_the_teacher_fails_the_students_answer_stands_with_a_warning(made, capsys):
    settle, _, fails = made
    fails["unsure"] = True
    found = settle.settle(QUESTIONS, ANSWERS)
    assert [each.value["city"] for each in found] == ["Oslo", "Rome", "Paris"] and found[1].by == "student"
    assert found[1].warning == "below 0.7, but embedded-teacher gave no valid answer: its answer is not valid"
    assert found[0].warning is found[2].warning is None
    assert capsys.readouterr().out == (
        "deferred 2 of 3 requests to embedded-teacher; to 1 of them it gave no valid answer, and the student's stand\n"
    )


def test_a_teacher_that_cannot_be_asked_loses_no_answer(made, monkeypatch, capsys):
    settle, _, fails = made
    fails["all"] = True
    found = settle.settle(QUESTIONS, ANSWERS)
    assert [each.value for each in found] == [each.value for each in ANSWERS] and not found[2].valid
    assert found[1].warning == found[2].warning
    assert found[1].warning == "below 0.7, but embedded-teacher gave no valid answer: nobody answers"
    assert "to 2 of them it gave no valid answer" in capsys.readouterr().out
    assert settle.ask(QUESTIONS[:1]) == [Answer(None, False, (), "", 0, 0.0, "nobody answers")]
    monkeypatch.setattr(deferral, "ask_teacher", Mock(side_effect=UserError("no key")))
    assert settle.ask(QUESTIONS[:1])[0].problem == "no key"


def test_the_teacher_that_is_named_stands_behind_a_student(monkeypatch):
    read = Mock(return_value=Calibration(0.5, 1.0))
    monkeypatch.setattr(deferral, "read_calibration", read)
    settings = default_settings()
    opened = deferral.open_deferral(settings, "an/adapter", "gpt-oss:120b", 1.0)
    assert (opened.teacher, opened.below, opened.calibration) == ("gpt-oss:120b", 1.0, Calibration(0.5, 1.0))
    read.assert_called_once_with(settings, "an/adapter")


def test_where_all_are_sure_no_teacher_is_opened(made, monkeypatch, capsys):
    settle, _, _ = made
    monkeypatch.setattr(deferral, "ask_teacher", None)
    assert settle.settle(QUESTIONS[:1], ANSWERS[:1])[0].by == "student" and not capsys.readouterr().out


@pytest.mark.parametrize(("teacher", "below"), [("", 0.5), ("x", 0.0), ("x", 1.5), ("x", -0.1)])
def test_a_bound_without_a_teacher_or_out_of_range_is_refused(teacher, below):
    with pytest.raises(SettingsError, match="--below"):
        deferral.open_deferral(default_settings(), "", teacher, below)
