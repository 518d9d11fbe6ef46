"""The folder of a run: what a stage says, did and failed of, without a secret; and what `status` makes of it."""

import json
import logging
import os
import subprocess
import sys
from base64 import b64encode
from datetime import datetime, timedelta

import pytest

from schema_student.cli.main import dispatch
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl
from schema_student.core.log import log, log_event
from schema_student.core.settings import default_settings
from schema_student.operate import recorder
from schema_student.operate.recorder import recorded
from schema_student.operate.secrets import secret_hider
from schema_student.operate.status import describe_status, read_status

PASSWORD, KEY, QUOTED = "S3cret/Passw0rd", "sk-T0pSecretKey", 'pa"ss\\word'
SECRETS = (PASSWORD, "S3cret%2FPassw0rd", KEY, b64encode(f"ann:{PASSWORD}".encode()).decode(), json.dumps(QUOTED)[1:-1])


@pytest.fixture
def settings(tmp_path):
    return default_settings(output_dir=str(tmp_path / "out"), run="mine", seed=7)


def folder_of(settings):
    from schema_student.core.paths import paths

    return paths(settings).run_folder


def state_of(settings, stage="sft"):
    (run,) = read_status(settings)["runs"]
    return next(found for found in run["stages"] if found["stage"] == stage), run


def test_a_stage_leaves_its_messages_events_and_state(settings):
    before = list(log.handlers)
    with recorded("sft", settings):
        log.info("said aloud")
        log.debug("said to the log alone")
        log_event("progress", "half", what="training", done=5, total=10, unit="step", per_second=2.5, loss=float("nan"))
    folder = folder_of(settings)
    assert (folder / "console.log").read_text() == "said aloud\n"
    log_text = (folder / "run.log").read_text()
    assert "said to the log alone" in log_text and "DEBUG" in log_text
    events = read_jsonl(folder / "events.jsonl")
    assert [row["event"] for row in events] == ["begun", "progress", "done"]
    assert (events[1]["done"], events[1]["total"], events[1]["loss"]) == (5, 10, None)
    state = json.loads((folder / "status.json").read_text())["stages"]["sft"]
    assert (state["state"], state["settings"]["seed"]) == ("done", 7)
    assert os.readlink(folder.parents[1] / "latest") == os.path.join("runs", "mine")
    assert not log.isEnabledFor(logging.DEBUG) and log.handlers == before


def test_an_error_that_nobody_foresaw_is_one_line_and_its_traceback_is_in_the_log(settings, capsys):
    def divide(numerator, api_key):
        return numerator / 0

    with pytest.raises(SystemExit) as left, recorded("sft", settings):
        divide(12, KEY)
    assert left.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ZeroDivisionError: division by zero") and "run.log" in line
    text = (folder_of(settings) / "run.log").read_text()
    assert "Traceback" in text and "return numerator / 0" in text and "settings = Settings(" in text
    state, run = state_of(settings)
    assert (state["state"], state["error"]) == ("failed", "ZeroDivisionError: division by zero")
    assert run["state"] == "failed" and run["next"].startswith("schema-student run --from domain_specs --run mine")


def test_what_a_person_can_mend_is_told_as_before_and_recorded(settings):
    with pytest.raises(UserError), recorded("sft", settings):
        raise UserError("the input is not there; make it")
    assert (folder_of(settings) / "console.log").read_text() == "error: the input is not there; make it\n"
    assert state_of(settings)[0]["error"] == "the input is not there; make it"


def test_an_interrupt_is_recorded_as_one(settings):
    with pytest.raises(KeyboardInterrupt), recorded("sft", settings):
        raise KeyboardInterrupt
    assert state_of(settings)[0]["state"] == "interrupted"


@pytest.mark.parametrize("by", ["flag", "environment", "key", "proxy", "quoted"])
def test_no_secret_stands_in_the_folder_of_a_run(by, settings, monkeypatch):
    address = f"http://ann:{PASSWORD.replace('/', '%2F')}@gpu:11434"
    given = {"teacher_host": [address]} if by == "flag" else {}
    variables = {"environment": ("OLLAMA_HOST", f"ann:{PASSWORD}@gpu"), "key": ("HF_TOKEN", KEY)}
    variables |= {"proxy": ("HTTPS_PROXY", f"http://u:{PASSWORD}@p:9"), "quoted": ("WANDB_API_KEY", QUOTED)}
    if by in variables:
        monkeypatch.setenv(*variables[by])
    own = {"flag": SECRETS[:2], "key": [KEY], "quoted": [QUOTED, SECRETS[4]]}.get(by, SECRETS[:1])
    settings = settings.changed(**given)

    def fail(words, held):
        log.info(words)
        log_event("progress", words, what=words, done=1, nested={"words": words})
        raise RuntimeError(words)

    with pytest.raises(SystemExit), recorded("sft", settings):
        fail(f"401 for {' and '.join(own)}", {"header": list(own), "address": address if by == "flag" else ""})
    left = "".join(path.read_text() for path in folder_of(settings).rglob("*") if path.is_file())
    assert "401 for ***" in left
    assert not [secret for secret in own if secret.casefold() in left.casefold()]


def test_a_word_of_no_secret_is_left(monkeypatch):
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "root@example.org")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert secret_hider(["http://gpu:11434"])("root said false") == "root said false"


def test_logs_are_rotated(settings, monkeypatch):
    monkeypatch.setattr(recorder, "LARGEST", 200)
    with recorded("sft", settings):
        for number in range(40):
            log.info(f"message {number} {'x' * 50}")
    kept = sorted(path.name for path in folder_of(settings).glob("console.log*"))
    assert kept == ["console.log", *(f"console.log.{number}" for number in (1, 2, 3))]
    assert "message 39" in (folder_of(settings) / "console.log").read_text()
    assert all(path.stat().st_size < 400 for path in folder_of(settings).glob("console.log*"))


def test_a_folder_that_takes_no_file_stops_no_stage(settings):
    folder = folder_of(settings)
    folder.parents[1].mkdir()
    folder.parent.write_text("in the way")
    with recorded("sft", settings):
        log.info("goes on")
    with pytest.raises(UserError, match="so it is"), recorded("sft", settings):
        raise UserError("so it is")


def test_nothing_is_written_through_a_link(settings, tmp_path):
    folder = folder_of(settings)
    folder.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("mine")
    (folder / "status.json").symlink_to(tmp_path / "elsewhere")
    (folder.parents[1] / "latest").mkdir()
    with recorded("sft", settings):
        pass
    assert (tmp_path / "elsewhere").read_text() == "mine" and (folder.parents[1] / "latest").is_dir()


# ---- status


def test_a_stage_at_work_is_running_with_its_progress_and_one_that_was_killed_is_said_so(settings):
    code = "import os, signal, sys\nfrom schema_student.core.settings import default_settings\n"
    code += "from schema_student.core.log import log_event\nfrom schema_student.operate import recorder\n"
    code += "recorder.STATUS_EVERY = 0\n"
    code += f"with recorder.recorded('sft', default_settings(output_dir={settings.run.output_dir!r}, run='mine')):\n"
    code += "    facts = dict(what='training', done=30, total=300, unit='step', per_second=1.5, seconds_left=180.0)\n"
    code += "    log_event('progress', 'step 30', **facts)\n    print('ready', flush=True)\n    sys.stdin.read()\n"
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **streams) as process:
        assert process.stdout.readline() == "ready\n"
        state, run = state_of(settings)
        shown = "\n".join(describe_status(read_status(settings)))
        process.kill()
    assert state["state"] == run["state"] == "running" and state["pid"] == process.pid
    assert "training 30/300 steps, 1.5 a second, 3 min 0 s left" in shown and "status --watch" in run["next"]
    state, run = state_of(settings)
    assert state["state"] == run["state"] == "killed" and "is gone without a word" in "\n".join(
        describe_status(read_status(settings))
    )


def test_a_lock_whose_holder_is_gone_is_stale(settings):
    folder_of(settings).mkdir(parents=True)
    runs = folder_of(settings).parents[1] / "student_runs"
    runs.mkdir()
    (runs / "mine.lock").write_text("999999999")
    (runs / "mine-dpo.lock").write_text(str(os.getpid()))
    (runs / "other.lock").write_text("1")
    _, run = state_of(settings)
    assert [(lock["process"], lock["stale"]) for lock in run["locks"]] == [
        (str(os.getpid()), False),
        ("999999999", True),
    ]


@pytest.mark.parametrize("words", ["", "{", "[]", '{"stages": []}', '{"stages": {"sft": 1}}'])
def test_a_broken_status_is_none(words, settings):
    folder_of(settings).mkdir(parents=True)
    (folder_of(settings) / "status.json").write_text(words)
    assert state_of(settings)[0]["state"] == "to do"


def test_a_verb_is_recorded_and_the_command_that_goes_on_has_its_flags(settings, monkeypatch, capsys):
    monkeypatch.delenv("SCHEMA_STUDENT_RUNNER", raising=False)
    out = settings.run.output_dir
    with pytest.raises(UserError):
        dispatch(["corpus", "--output-dir", out, "--schema-rendering", "json"])
    with pytest.raises(SystemExit):
        dispatch(["corpus", "--output-dir", out, "--print-config"])
    capsys.readouterr()
    dispatch(["status", "--output-dir", out, "--json"])
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["run"] == "student" and run["state"] == "failed"
    flags = f"--run student --output-dir {out} --schema-rendering json"
    assert run["next"] == f"schema-student run --from domain_specs {flags}"


def test_a_verb_that_stands_alone_is_advised_by_its_own_name(settings):
    with pytest.raises(UserError), recorded("train-dpo", settings.changed(data_set="prefs.jsonl")):
        raise UserError("no row")
    (run,) = read_status(settings)["runs"]
    assert [stage["stage"] for stage in run["stages"]] == ["train-dpo"]
    assert run["next"].startswith("schema-student train-dpo --run mine") and "--data-set prefs.jsonl" in run["next"]


def test_without_a_run_it_says_how_to_begin_and_makes_nothing(tmp_path, capsys):
    dispatch(["status", "--output-dir", str(tmp_path / "none")])
    assert "begin: schema-student run" in capsys.readouterr().out and not list(tmp_path.iterdir())


# ---- every file of a run's folder, row by row


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns, and a process that was started at tick 100 on a machine named here."""

    class Clock:
        seconds = 0.0

        @classmethod
        def now(cls, zone):
            return datetime(2026, 11, 20, 11, tzinfo=zone) + timedelta(seconds=cls.seconds)

    monkeypatch.setattr(recorder, "datetime", Clock)
    monkeypatch.setattr(recorder.time, "monotonic", lambda: 50 + Clock.seconds)
    monkeypatch.setattr(recorder.platform, "node", lambda: "here")
    monkeypatch.setattr(recorder, "process_started", lambda pid: "100" if pid == os.getpid() else "")
    return Clock


def at(seconds):
    return f"2026-11-20T11:00:{seconds:06.3f}+00:00"


def test_files_of_a_run_hold_each_message_event_and_state(settings, clock, monkeypatch):
    monkeypatch.setenv("SCHEMA_STUDENT_COMMAND", "./runAll.sh")
    path = folder_of(settings) / "status.json"
    progress = {"done": 1, "of": {"word": "http://ann:pass@gpu", "rate": float("inf")}}
    shown = {"done": 1, "of": {"word": "http://***@gpu", "rate": None}}
    with recorded("sft", settings):
        begun = json.loads(path.read_text())
        log_event("progress", "one", **progress)
        clock.seconds = 1.9
        log_event("progress", "two", done=2)
        early = json.loads(path.read_text())
        clock.seconds = 2.0
        log_event("progress", "three", done=3)
        written = json.loads(path.read_text())
        log.warning("a\x1b[2J\nb")
    state = {
        **{"state": "running", "pid": os.getpid(), "host": "here", "process_started": "100", "started_at": at(0)},
        **{"settings": {"output_dir": settings.run.output_dir, "run": "mine", "seed": 7}, "runner": "./runAll.sh"},
    }
    assert begun == {"run": "mine", "stages": {"sft": {**state, "at": at(0)}}} == early
    assert written["stages"]["sft"] == {**state, "progress": {"done": 3}, "at": at(2)}
    ended = {**state, "state": "done", "ended_at": at(2), "progress": {"done": 3}, "at": at(2)}
    assert json.loads(path.read_text())["stages"] == {"sft": ended}
    events = [{"event": "begun"}, {"event": "progress", **shown}, {"event": "progress", "done": 2}]
    events += [{"event": "progress", "done": 3}, {"event": "done"}]
    times = [0, 0, 1.9, 2, 2]
    assert read_jsonl(path.with_name("events.jsonl")) == [
        {"at": at(seconds), "stage": "sft", **event} for seconds, event in zip(times, events, strict=True)
    ]
    head = f"sft [{os.getpid()}]"
    assert path.with_name("run.log").read_text().splitlines() == [
        f"{at(0)} DEBUG   {head} begun: sft",
        f"{at(0)} DEBUG   {head} one",
        f"{at(1.9)} DEBUG   {head} two",
        f"{at(2)} DEBUG   {head} three",
        f"{at(2)} WARNING {head} a [2J",
        "b",
        f"{at(2)} DEBUG   {head} done: sft",
    ]
    assert path.with_name("console.log").read_text() == "a [2J\nb\n"
    with recorded("export", settings):
        pass
    assert list(json.loads(path.read_text())["stages"]) == ["sft", "export"]


@pytest.mark.parametrize(
    ("left", "shown", "state", "error"),
    [
        (SystemExit(3), "", "failed", "it ended with exit code 3"),
        (SystemExit(3), "error: no room", "failed", "no room"),
        (SystemExit(3), "error: no room\nmore", "failed", "it ended with exit code 3"),
        (SystemExit(0), "error: no room", "done", None),
        (BrokenPipeError(32, "gone"), "", "failed", "BrokenPipeError: [Errno 32] gone"),
        (PermissionError(13, "no"), "", "failed", "PermissionError: [Errno 13] no"),
    ],
)
def test_how_a_stage_ended_is_recorded(left, shown, state, error, settings):
    def stage():
        log.error(shown or "a word")
        raise left

    with pytest.raises(type(left)) as caught, recorded("sft", settings):
        stage()
    found = state_of(settings)[0]
    told = json.loads((folder_of(settings) / "status.json").read_text())["stages"]["sft"]
    assert caught.value is left and (told["state"], told.get("error")) == (state, error)
    assert error is None or found["error"] == error
    assert read_jsonl(folder_of(settings) / "events.jsonl")[-1]["event"] == state


def test_an_operating_system_s_error_that_nobody_can_mend_is_unforeseen(settings):
    with pytest.raises(SystemExit) as left, recorded("sft", settings):
        raise OSError(5, "Input/output error")
    assert left.value.code == 1 and state_of(settings)[0]["error"] == "OSError: [Errno 5] Input/output error"


def test_of_several_processes_the_first_alone_writes_but_each_its_failure(settings, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with recorded("sft", settings):
        log.info("said")
    assert not folder_of(settings).exists()
    with pytest.raises(SystemExit), recorded("sft", settings):
        raise RuntimeError("of the second")
    text = (folder_of(settings) / "run.log").read_text()
    assert "RuntimeError: of the second" in text and "begun" not in text


def test_links_lead_from_a_run_to_its_parts_and_to_the_last_run(settings):
    from schema_student.core.paths import paths

    where = paths(settings)
    for place in (where.run_dir, where.report_dir, where.exports, where.dataset):
        place.mkdir(parents=True)
    where.run_folder.mkdir(parents=True)
    (where.run_folder / "report").write_text("mine")  # what is no link stays
    (where.run_folder / "exports").symlink_to("elsewhere")
    with recorded("sft", settings):
        pass
    links = {path.name: os.readlink(path) for path in where.run_folder.iterdir() if path.is_symlink()}
    assert links == {
        "student": "../../student_runs/mine",
        "exports": "../../exports/mine",
        "dataset": "../../data/mine/d_03_dataset.jsonl",
    }
    before = os.lstat(where.run_folder / "student").st_ino
    with recorded("sft", settings):
        pass
    assert os.lstat(where.run_folder / "student").st_ino == before  # the same one is not made anew
    assert not [path for path in where.run_folder.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("setting", ["teacher_host", "endpoint"])
def test_passwords_of_a_run_s_own_addresses_are_hidden(setting, settings):
    address = "http://ann:pass-word@gpu"
    given = {setting: [address] if setting == "teacher_host" else address}
    with recorded("sft", settings.changed(**given)):
        log.info("401 for pass-word")
    assert (folder_of(settings) / "console.log").read_text() == "401 for ***\n"


def test_a_log_is_set_aside_once_it_is_larger_than_its_bound_and_three_are_kept(settings, monkeypatch):
    monkeypatch.setattr(recorder, "LARGEST", 4)
    with recorded("sft", settings):
        for word in ("abc", "d", "efgh", "ijkl", "mnop", "qrst"):
            log.info(word)
    folder = folder_of(settings)
    kept = {path.name[-1]: path.read_text() for path in folder.glob("console.log*")}
    assert kept == {"g": "qrst\n", "1": "mnop\n", "2": "ijkl\n", "3": "efgh\n"}


def test_the_start_of_a_process_is_a_number_of_ticks_and_nothing_of_none():
    assert recorder.process_started(os.getpid()).isdigit() and recorder.process_started(2**22 + 1) == ""


def test_settings_without_a_run_s_name_have_none(tmp_path):
    assert recorder.run_of(default_settings(run="mine")) == "mine"
    assert recorder.run_of(default_settings(run="eval")) == ""
