"""The menu: what is typed becomes a command line that the verb takes, is shown, and runs as a child."""

import json
import re
import shlex

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from schema_student.cli import operating
from schema_student.cli.main import ARGUMENTS, VERBS, dispatch
from schema_student.core.errors import UserError
from schema_student.core.flags import parse_command
from schema_student.core.settings import GROUP_OF, default_settings
from schema_student.core.verbs import settings_read
from schema_student.operate.menu import STEPS, lead, run_child
from schema_student.operate.recorder import recorded

ENTER, DOWN, CLEAR, CTRL_C = "\r", "\x1b[B", "\x15", "\x03"  # Ctrl-U empties a line


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Type keys into the menu of an output folder; returns the commands that it ran."""
    monkeypatch.delenv("SCHEMA_STUDENT_RUNNER", raising=False)
    settings = default_settings(output_dir=str(tmp_path / "out"))

    def type_keys(*keys):
        ran = []
        with create_pipe_input() as pipe:
            pipe.send_text("".join(keys) + CTRL_C)
            lead(settings, ARGUMENTS, lambda words: ran.append(list(words)) or 0, input=pipe, output=DummyOutput())
        return ran

    return type_keys


def parse(words):
    verb, *flags = words
    return parse_command(flags, "", verb, ARGUMENTS.get(verb, {}))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_what_a_step_asks_its_verb_reads(step):
    assert step.verb in VERBS
    for name in step.asked:
        known = settings_read(step.verb) if name in GROUP_OF else {*ARGUMENTS.get(step.verb, {}), "--preset"}
        assert name in known, name


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_each_step_is_a_command_that_its_verb_takes_when_all_is_left_as_it_is(step, typed, tmp_path):
    named = [] if step.verb in ("compare", "doctor") else ["mine", ENTER]
    keys = [step.title, ENTER, *named, *[ENTER] * len(step.asked), ENTER]
    (words,) = typed(*keys)
    assert words[0] == step.verb and ("mine" in words) == bool(named)
    settings, _ = parse(words)
    assert settings.run.output_dir == str(tmp_path / "out")


def test_settings_that_are_typed_become_flags_and_the_command_is_shown_before_it_runs(typed, capsys):
    keys = ["from nothing", ENTER, "my-run", ENTER, DOWN, ENTER, "a b.json", ENTER, CLEAR, "embedded", ENTER, ENTER]
    (words,) = typed(*keys, ENTER)
    settings, _ = parse(words)
    assert (settings.run.run, settings.run.schemas, settings.teacher.teacher_model) == (
        "my-run",
        "a b.json",
        "embedded",
    )
    assert words[words.index("--preset") + 1] == "tiny" and settings.sft.sft_max_steps == 8
    assert f"ended with exit code 0: schema-student {shlex.join(words)}" in capsys.readouterr().out


def test_a_command_that_is_not_wanted_is_not_run(typed):
    assert typed("report", ENTER, "mine", ENTER, "back", ENTER) == []


def test_arguments_of_a_verb_are_asked_too(typed):
    (words,) = typed("ask one", ENTER, ENTER, "s.json", ENTER, ENTER, "y", "to Oslo", ENTER, ENTER)
    assert words[:1] == ["ask"] and words[-4:] == ["--schema", "s.json", "--constrained", "to Oslo"]


def test_what_comes_next_is_first_and_a_step_goes_on_with_its_run_s_settings(typed, tmp_path):
    settings = default_settings(
        output_dir=str(tmp_path / "out"), run="mine", sft_epochs=3, lora_r=4, eval_student="sft"
    )
    with pytest.raises(UserError), recorded("sft", settings):
        raise UserError("stopped")
    (words,) = typed(ENTER, ENTER)
    assert words[:5] == ["run", "--from", "domain_specs", "--run", "mine"] and "--sft-epochs" in words
    (words,) = typed("train: SFT", ENTER, ENTER, ENTER, CLEAR, "5", ENTER, ENTER, ENTER)
    changed, _ = parse(words)
    assert (changed.run.run, changed.sft.sft_epochs, changed.lora.lora_r) == ("mine", 5, 4)


def test_quit_and_ctrl_d_end_it(typed):
    assert typed("quit", ENTER) == typed("\x04") == []


@pytest.mark.parametrize(("typed", "shown"), [(False, False), (True, False), (False, True)])
def test_without_a_terminal_it_says_what_to_type(typed, shown, monkeypatch):
    for stream, is_one in ((operating.sys.stdin, typed), (operating.sys.stdout, shown)):
        monkeypatch.setattr(stream, "isatty", lambda is_one=is_one: is_one, raising=False)
    with pytest.raises(UserError, match="needs a terminal; without one: schema-student status") as refused:
        dispatch(["menu"])
    for command in re.findall(r"schema-student ([a-z]+[a-z -]*)", str(refused.value)):
        verb, *flags = command.split()
        assert verb in VERBS and parse_command(flags, "", verb, ARGUMENTS.get(verb, {}))


def test_without_questionary_it_says_what_to_install(monkeypatch):
    for stream in (operating.sys.stdin, operating.sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(operating.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'schema-student\[menu\]'"):
        dispatch(["menu"])


def test_a_command_runs_as_a_child_whose_exit_code_is_told(capfd):
    assert run_child(["config", "--beta", "0.3"]) == 0 and json.loads(capfd.readouterr().out)["beta"] == 0.3
    assert run_child(["config", "--beta", "-1"]) == 2
