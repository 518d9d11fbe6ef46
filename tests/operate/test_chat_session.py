"""A conversation: answers with their verdicts, commands, what is saved; and nothing of a model's steers a terminal."""

import io
import json
from types import SimpleNamespace

import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.output.vt100 import Vt100_Output
from schema_examples import CITY, ROOM

from schema_student.core.jsonl import read_jsonl, write_json
from schema_student.core.settings import default_settings
from schema_student.data.questions import QuestionReader
from schema_student.operate import chat
from schema_student.operate.chat import Session, converse
from schema_student.operate.chat_lines import plain, side_by_side, write_answer
from schema_student.operate.chat_lines import write_json as write_value
from schema_student.operate.chat_terminal import chat_at_terminal
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.user_schemas import load_schemas
from schema_student.student.ask import Answer

WRONG = "the wrong city"


@pytest.fixture
def asked(monkeypatch):
    """Answers every request with its last word as a city, and remembers (adapter, question, asking)."""
    found = []

    def ask(student, questions, settings, asking):
        (question,) = questions
        found.append((student.adapter, question, asking))
        text = json.dumps({"city": 3 if question.request == WRONG else question.request.split()[-1]})
        verdict = judge(text, question.schema)
        return [Answer(verdict.value, verdict.schema_valid, verdict.violations, text, 7, 0.5)]

    monkeypatch.setattr(chat, "ask_student", ask)
    return found


@pytest.fixture
def session(asked, tmp_path, monkeypatch):
    """A session over CITY in an empty folder, where the runs "one" and "two" have adapters."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        folder = tmp_path / "outputs" / "student_runs" / name / "checkpoint-final"
        write_json(folder / "adapter_config.json", {})
        write_json(folder / "schema_student.json", {"base": "models/x", "base_digest": "?"})
    return Session(default_settings(), QuestionReader(default_settings(), json.dumps(CITY)), load, "2026-01-31")


def load(settings, adapter=None):
    return SimpleNamespace(settings=settings, adapter=adapter, choice=SimpleNamespace(name="a student"))


def say(session, text):
    return "\n".join(map(plain, session.reply(text)))


def test_a_request_is_answered_with_its_verdict_beneath(session, asked):
    assert say(session, "to Oslo") == '{\n  "city": "Oslo"\n}\nvalid  7 tokens, 0.50 s'
    assert asked[0][1].day == "2026-01-31" and say(session, "  ") == ""
    said = say(session, WRONG)
    assert "not valid" in said and "/city: 3 is not of type" in said


def test_answers_are_coloured_by_what_they_are():
    styles = {text: style for line in write_value({"a": ["b", 1, None]}) for style, text in line}
    assert (styles['"a"'], styles['"b"'], styles["1"], styles["null"]) == ("key", "string", "number", "word")


def test_what_is_saved_is_a_row_of_schemas_as_the_person_corrected_it(session):
    assert "nothing was asked" in say(session, "/save")
    say(session, "to Oslo")
    session.edit = lambda text: text.replace("Oslo", "Bergen")
    assert "saved" in say(session, "/save")
    assert "saved" in say(session, '/save {"city": "Bonn"}')
    rows = load_schemas(session.saved)
    assert [(row.query, row.answer, row.current_date) for row in rows] == [
        ("to Oslo", {"city": city}, "2026-01-31") for city in ("Bergen", "Bonn")
    ]


def test_what_is_not_valid_or_given_up_is_not_saved(session):
    say(session, "to Oslo")
    session.edit = lambda text: None
    assert say(session, "/save") == "not saved" and "/city" in say(session, '/save {"city": 3}')
    assert "not JSON" in say(session, "/save {") and not session.saved.exists()


def test_a_full_disk_is_said_and_the_saved_rows_stay(session, monkeypatch):
    say(session, "to Oslo")
    say(session, "/save")
    before = read_jsonl(session.saved)

    def fail(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chat, "write_bytes", fail)
    assert "No space left" in say(session, "/save") and read_jsonl(session.saved) == before


def test_nothing_is_saved_through_a_link(session, tmp_path):
    other = tmp_path / "other"
    session.saved.parent.mkdir(parents=True)
    session.saved.symlink_to(other)
    say(session, "to Oslo")
    assert "is a link" in say(session, "/save") and not other.exists()


def test_another_schema_is_asked_by_from_then_on(session, asked, tmp_path):
    (tmp_path / "room.json").write_text(json.dumps(ROOM))
    assert say(session, "/schema room.json").startswith("schema room:")
    say(session, "x")
    assert asked[-1][1].schema is compile_schema(ROOM) or asked[-1][1].schema.schema == compile_schema(ROOM).schema
    assert "has no schemas here" in say(session, "/schema nothing")
    assert say(session, "/schema").startswith("schema room:")


def test_another_adapter_is_asked_by_its_folder_or_its_run(session, asked):
    one, two = (f"outputs/student_runs/{name}/checkpoint-final" for name in ("one", "two"))
    assert say(session, "/adapter one") == f"asking {one}"
    say(session, "to Oslo")
    assert asked[-1][0] == one
    assert say(session, f"/adapter {two}") == say(session, "/adapter") == f"asking {two}"
    assert say(session, "/adapter base") == "asking base"
    for name in ("three", "../../etc", "..", "a\x1b[2Jb"):
        said = say(session, f"/adapter {name}")
        assert said.isprintable() and name.split("\x1b")[0] in said and say(session, "/adapter") == "asking base"


def test_an_adapter_that_cannot_be_loaded_leaves_the_one_before(session, tmp_path, asked):
    (tmp_path / "outputs/student_runs/two/checkpoint-final/schema_student.json").unlink()
    say(session, "/adapter one")
    assert "names the base" in say(session, "/adapter two") and "one" in say(session, "/adapter")


def test_two_adapters_are_asked_side_by_side(session, asked):
    say(session, "to Oslo")
    said = say(session, "/compare one two")
    assert [each[0].split("/")[2] for each in asked[1:]] == ["one", "two"]
    assert said.count('"city": "Oslo"') == 2 and said.splitlines()[2].count("|") == 1
    assert "two different adapters" in say(session, "/compare one one") + say(session, "/compare one")
    assert "one/" in say(session, "/adapter") and "two/" in say(session, "/adapter")


def test_a_narrow_terminal_shows_two_answers_below_each_other_and_a_wide_one_cuts_what_is_too_long():
    left, right = [[("", "a" * 90)]], [[("", "b")]]
    assert [plain(line) for line in side_by_side(left, right, 30)] == ["a" * 90, "", "b"]
    (line,) = side_by_side(left, right, 63)
    assert plain(line) == "a" * 27 + "... | b"
    (line,) = side_by_side([[("", "a" * 30)]], right, 63)
    assert plain(line) == "a" * 30 + " | b"


def test_constrained_decoding_is_switched(session, asked):
    assert [say(session, f"/constrained{state}")[-3:].strip() for state in ("", "", " on", " off")] == [
        "on", "off", "on", "off",
    ]  # fmt: skip
    say(session, "/constrained on")
    say(session, "to Oslo")
    assert asked[-1][2].constrained and "takes on, off" in say(session, "/constrained maybe")


def test_an_unknown_command_names_the_nearest_and_a_space_asks_what_begins_with_a_slash(session, asked):
    assert "did you mean /schema?" in say(session, "/shema") and not asked
    assert '"city": "/shema"' in say(session, " /shema")
    assert all(f"/{name}" in say(session, "/help") for name in chat.COMMANDS)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\r"


def test_what_a_model_writes_reaches_no_terminal_as_it_is():
    for answer in (Answer({HOSTILE: HOSTILE}, True, (), "", 1, 0.0), Answer(None, False, (), HOSTILE, 1, 0.0, HOSTILE)):
        lines = [plain(line) for line in write_answer(answer)]
        assert all(line.isprintable() for line in lines), lines
    value = "".join(plain(line) for line in write_value({"a": HOSTILE}))
    assert json.loads(value) == {"a": HOSTILE}


def test_a_pipe_gets_plain_lines_until_quit(session, asked):
    said = []
    converse(session, [b"to Oslo\n", b"to \xff\n", b"/quit\n", b"to Rome\n"], said.append)
    assert said[3].startswith("valid") and len(asked) == 2 and session.ended


# At a terminal


def at_terminal(session, tmp_path, typed, make_output=PlainTextOutput):
    shown = io.StringIO()
    with create_pipe_input() as pipe:
        pipe.send_text(typed)
        chat_at_terminal(session, tmp_path / "chat" / "history", input=pipe, output=make_output(shown))
    return shown.getvalue()


def test_a_terminal_edits_saves_and_remembers(session, tmp_path):
    shown = at_terminal(session, tmp_path, 'to Oslo\r/save\r\x7f\x7f!"}\r/quit\r')
    assert '"city": "Oslo"' in shown and "saved" in shown
    assert [row.answer for row in load_schemas(session.saved)] == [{"city": "Oslo!"}]
    history = (tmp_path / "chat" / "history").read_text()
    assert "+to Oslo\n" in history and "Oslo!" not in history


def test_ctrl_c_gives_up_a_line_and_a_correction_and_ctrl_d_ends(session, tmp_path, asked):
    shown = at_terminal(session, tmp_path, "half\x03to Oslo\r/save\r\x03\x04")
    assert [each[1].request for each in asked] == ["to Oslo"] and "not saved" in shown and not session.ended


def test_ctrl_c_stops_an_answer_and_not_the_conversation(session, tmp_path, asked, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "ask_student", stop)
    assert "stopped" in at_terminal(session, tmp_path, "to Oslo\r/quit\r") and session.ended


def test_a_terminal_is_sent_colours_and_no_sequence_of_the_model_s(session, tmp_path, monkeypatch):
    answer = Answer(None, False, (), "a\x1b]0;owned\x07b", 1, 0.0, "c\x1b[2Jd")
    monkeypatch.setattr(chat, "ask_student", lambda *_: [answer])

    def vt100(stream):
        return Vt100_Output(stream, lambda: Size(24, 80), enable_cpr=False)

    shown = at_terminal(session, tmp_path, "x\r/quit\r", vt100)
    assert "\x1b]0;" not in shown and "a ]0;owned b" in shown and "c [2Jd" in shown and "\x1b[0;31m" in shown


def test_the_history_is_not_written_through_a_link(session, tmp_path):
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "history").symlink_to(tmp_path / "other")
    with pytest.raises(chat.UserError, match="is a link"):
        at_terminal(session, tmp_path, "/quit\r")
