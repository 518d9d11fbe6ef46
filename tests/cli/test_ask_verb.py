"""The verb ask: one JSON object on standard output, all else on standard error; many requests in their order."""

import io
import json
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from schema_examples import CITY, ROOM

from schema_student.cli import ask
from schema_student.cli.main import VERBS
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import write_json, write_jsonl
from schema_student.core.records import DatasetRow
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.data import questions
from schema_student.evaluation import deferral
from schema_student.evaluation.confidence import Calibration
from schema_student.student import loading
from schema_student.student.ask import Answer
from schema_student.student.loading import attach_adapter, load_student, save_adapter

INLINE = ["--schema", json.dumps(CITY)]


@pytest.fixture(scope="module")
def loaded():
    """The embedded student, loaded once."""
    return load_student(default_settings(base_model="embedded"))


@pytest.fixture
def run(loaded, monkeypatch, tmp_path, capsys):
    """Runs the verb in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_student", lambda settings, adapter=None: remember(settings, adapter))
    asked = []

    def remember(settings, adapter):
        asked.append((settings, adapter))
        loaded.settings, loaded.adapter = resolve_auto(settings, "embedded"), adapter
        return loaded

    def call(*argv, lines=""):
        given = lines.encode() if isinstance(lines, str) else lines
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given) if isinstance(given, bytes) else given))
        capsys.readouterr()
        code = 0
        try:
            VERBS["ask"](list(argv))
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        return code, said.out, said.err

    call.asked = asked
    return call


def test_one_object_stands_on_standard_output_and_what_is_loaded_on_standard_error(run):
    code, out, err = run(*INLINE, "a flight to Oslo")
    assert code == 0 and json.loads(out) == {"city": "Oslo"} and out.count("\n") == 1
    assert "student: embedded student" in err and "no adapter: the base alone" in err


def test_a_schema_may_lie_in_a_file(run, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"type": "function", "function": {"name": "f", "parameters": CITY}}))
    code, out, err = run("--schema", "s.json", "to Oslo")
    assert code == 0 and json.loads(out) == {"city": "Oslo"} and "taken out of" in err


def test_an_invalid_answer_leaves_standard_output_empty_and_says_why_as_json(run):
    nothing = {**CITY, "properties": {"city": {"type": "string", "maxLength": 0}}}
    code, out, err = run("--schema", json.dumps(nothing), "to Oslo")
    error = json.loads(err.splitlines()[-1])
    assert (code, out) == (1, "") and error["error"] == "not valid against its schema"
    assert error["violations"][0]["keyword"] == "maxLength" and error["text"]


def test_explain_gives_verdict_and_sureness_on_standard_error(run):
    code, _, err = run(*INLINE, "to Oslo", "--explain")
    said = json.loads(err.splitlines()[-1])
    assert code == 0 and said["valid"] and said["sureness"]["log_p"] < 0 and said["sureness"]["least_sure"]


def test_rows_of_standard_input_are_answered_in_order_and_a_broken_one_stops_none(run, loaded, tmp_path):
    rows = [DatasetRow(schema_id=name, schema_json=json.dumps(schema), query="q", current_date="2026-01-31",
                       ast_json="{}", is_valid=True, split="train").as_json()
            for name, schema in (("city", CITY), ("room", ROOM))]  # fmt: skip
    write_jsonl(tmp_path / "outputs" / "d_03_dataset.jsonl", rows)
    lines = [
        {"query": "to Oslo"}, {"query": "to Lyon", "schema_id": "room"}, {"query": "to Rome", "schema": CITY}, {},
        {"query": "x", "schema_id": "rom"}, {"query": "x", "current_date": "soon"}, {"query": "to Bonn"},
    ]  # fmt: skip
    code, out, _ = run("--schema-id", "city", lines="\n".join([*map(json.dumps, lines), "{broken"]))
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and len(found) == 8
    assert [each["value"] for each in (found[0], found[2])] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert found[1]["text"] == loaded.ask(ROOM, "to Lyon").text != loaded.ask(CITY, "to Lyon").text
    assert found[6]["value"] == {"city": "Bonn"} and found[6]["query"] == "to Bonn"
    problems = [each["problem"] for each in found if not each["query"]]
    for number, word, problem in zip((4, 5, 6, 8), ("no query", "'room'", "YYYY-MM-DD", "JSON"), problems, strict=True):
        assert problem.startswith(f"line {number}") and word in problem
    assert run(*INLINE, lines='{"query": "to Oslo"}\n')[0] == 0


def test_lines_that_are_no_text_are_problems_of_their_own(run):
    good, twice = b'\xef\xbb\xbf{"query": "to Oslo"}', b'{"query": "a", "query": "b"}'
    code, out, _ = run(*INLINE, lines=b"\n".join([good, b'{"query": "\xff"}', b'{"query": "\\ud800"}', b"[1]", twice]))
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and found[0]["value"] == {"city": "Oslo"}
    words = ("not UTF-8 at byte 11", "lone surrogate", "a row is a JSON object", "duplicate key")
    assert all(word in each["problem"] for word, each in zip(words, found[1:], strict=True))


def test_answers_are_written_before_further_requests_are_read(run, monkeypatch, capsys):
    monkeypatch.setattr(ask, "CHUNK", 2)
    written = []

    class Requests(io.BytesIO):
        def __next__(self):
            written.append(capsys.readouterr().out.count("\n"))
            return super().__next__()

    code, _, _ = run(*INLINE, lines=Requests(b'{"query": "to Oslo"}\n' * 3 + b"[1]\n"))
    assert code == 1 and written == [0, 0, 2, 0, 2]  # at each line that is read, and at the end


def test_a_request_that_is_no_text_is_a_problem(run):
    code, out, err = run(*INLINE, "to \udcff")
    assert code == 1 and not out and "not UTF-8" in json.loads(err.splitlines()[-1])["error"]


def test_a_run_with_several_schemas_wants_an_id(run, tmp_path):
    with pytest.raises(UserError, match="run student has no schemas here: give --schema"):
        run("to Oslo")


def test_without_a_request_and_at_a_terminal_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(SettingsError, match="no request"):
        VERBS["ask"]([*INLINE])


@pytest.fixture
def trained(tmp_path, loaded):
    """A run "mine" whose SFT and DPO adapters lie in ./outputs, and which reads schemas as JSON."""
    settings = resolve_auto(default_settings(base_model="embedded", schema_rendering="json", lora_r=2), "embedded")
    student = attach_adapter(load_student(settings), settings)
    folders = [tmp_path / "outputs" / "student_runs" / name / "checkpoint-final" for name in ("mine", "mine-dpo")]
    for folder in folders:
        save_adapter(folder, student)
        write_json(folder.parent / "run_config.json", {"settings": settings.flat()})
    return folders


def test_a_run_is_asked_by_its_last_adapter_as_it_was_trained_unless_flags_say_otherwise(run, trained, tmp_path):
    sft, dpo = (str(folder.relative_to(tmp_path)) for folder in trained)
    run("--run", "mine", *INLINE, "to Oslo")
    settings, adapter = run.asked[-1]
    assert (adapter, settings.prompt.schema_rendering, settings.student.base_model) == (dpo, "json", "embedded")
    run("--run", "mine", *INLINE, "to Oslo", "--schema-rendering", "compact")
    assert run.asked[-1][0].prompt.schema_rendering == "compact"
    run("--adapter", sft, *INLINE, "to Oslo")
    assert run.asked[-1][1] == sft and run.asked[-1][0].prompt.schema_rendering == "json"
    run("--base-model", "embedded", *INLINE, "to Oslo")
    assert run.asked[-1][1] is None
    trained[1].joinpath("adapter_config.json").unlink()
    assert f"{sft}\n" in run("--run", "mine", *INLINE, "to Oslo")[2]
    with pytest.raises(UserError, match="other has no trained adapter"):
        run("--run", "other", *INLINE, "to Oslo")


@pytest.fixture
def taught(monkeypatch):
    """A teacher that answers everything with Oslo."""
    answer = Answer({"city": "Oslo"}, True, (), '{"city":"Oslo"}', 0, 0.0)
    monkeypatch.setattr(questions, "ask_teacher", lambda asked, settings: [answer] * len(asked))
    return answer


def test_a_named_teacher_is_asked_instead_and_no_student_is_loaded(run, taught):
    code, out, _ = run(*INLINE, "anything", "--teacher-model", "m:1")
    assert code == 0 and json.loads(out) == taught.value and not run.asked


def test_both_stand_beside_each_other(run, taught):
    for city, agree in (("Oslo", True), ("Rome", False)):
        code, out, _ = run(*INLINE, f"to {city}", "--both")
        assert code == 0 and json.loads(out) == {"student": {"city": city}, "teacher": taught.value, "agree": agree}
    code, out, _ = run(*INLINE, "--both", lines='{"query": "to Rome"}')
    row = json.loads(out)
    assert row["value"] == {"city": "Rome"} and row["teacher"]["value"] == {"city": "Oslo"}


def test_the_teacher_is_asked_for_an_answer_and_its_failure_is_a_problem(nothing_named, tmp_path):
    settings = default_settings(teacher_model="embedded", output_dir=str(tmp_path))
    (answer,) = questions.ask_teacher([questions.Question(CITY, "a word that nobody wrote", "2026-01-31")], settings)
    assert not answer.valid and "gave no usable answer" in answer.problem and asdict(answer)


def test_what_steers_a_terminal_is_escaped_and_the_json_says_the_same(run, taught, monkeypatch):
    value = {"city": "O\u202eslo\x9b"}
    monkeypatch.setattr(questions, "ask_teacher", lambda *_, **__: [Answer(value, True, (), "", 0, 0.0)])
    _, out, _ = run(*INLINE, "x", "--teacher-model", "m:1")
    assert out.strip().isprintable() and json.loads(out) == value


@pytest.fixture
def calibrated(monkeypatch):
    """A student that is calibrated, and a teacher that answers Paris."""
    monkeypatch.setattr(deferral, "read_calibration", lambda settings, adapter: Calibration(0.0, 1.0))
    teachers = Answer({"city": "Paris"}, True, (), '{"city":"Paris"}', 0, 0.0)
    monkeypatch.setattr(deferral, "ask_teacher", lambda questions, settings: [teachers for _ in questions])


def test_who_answered_a_request_is_said_on_standard_error_and_in_each_row(run, calibrated):
    code, out, err = run(*INLINE, "to Oslo", "--defer-to", "gpt-oss:120b", "--below", "1")
    told = json.loads(err.splitlines()[-1])
    assert code == 0 and json.loads(out) == {"city": "Paris"} and "deferred 1 of 1" in err
    assert told["by"] == "gpt-oss:120b" and 0 < told["confidence"] < 1
    code, out, err = run(*INLINE, "to Oslo", "--defer-to", "gpt-oss:120b", "--below", "0.001")
    told = json.loads(err.splitlines()[-1])
    assert json.loads(out) == {"city": "Oslo"} and told["by"] == "student" and "sureness" not in told
    _, out, _ = run(*INLINE, "--defer-to", "x", "--below", "1", lines='{"query": "to Oslo"}\n{"query": "to Rome"}')
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["by"], row["value"]["city"], row["query"]) for row in rows] == [
        ("x", "Paris", "to Oslo"),
        ("x", "Paris", "to Rome"),
    ]


def test_deferral_needs_a_calibration_and_both_of_its_flags(run, tmp_path):
    with pytest.raises(UserError, match="not calibrated"):
        run(*INLINE, "to Oslo", "--defer-to", "x", "--below", "0.5")
    for words in (["--defer-to", "x"], ["--below", "0.5"], ["--defer-to", "x", "--below", "0.5", "--both"]):
        with pytest.raises(SettingsError, match="--defer-to"):
            run(*INLINE, "to Oslo", *words)


# ---- requests of a file, models side by side


def test_each_line_of_a_file_is_a_request_as_words_or_as_a_row(run, tmp_path):
    rows = b'\xef\xbb\xbfto Oslo\n\n{"query": "to Rome", "current_date": "2026-01-01"}\n  to Lima  '
    (tmp_path / "asked.txt").write_bytes(rows)
    _, out, _ = run("--base-model", "embedded", *INLINE, "--prompts", "asked.txt")
    assert [json.loads(line)["query"] for line in out.splitlines()] == ["to Oslo", "to Rome", "to Lima"]
    with pytest.raises(UserError, match=r"--prompts none\.txt cannot be read"):
        run("--base-model", "embedded", *INLINE, "--prompts", "none.txt")
    with pytest.raises(SettingsError, match="--prompts holds the requests: leave REQUEST out"):
        run("--base-model", "embedded", *INLINE, "--prompts", "asked.txt", "to Oslo")


def test_models_stand_side_by_side_each_asked_as_it_was_trained(run, trained, tmp_path):
    sft = str(trained[0].relative_to(tmp_path))
    (tmp_path / "asked.txt").write_text("to Oslo\nto Rome\n")
    code, out, err = run("--run", "mine", *INLINE, "--prompts", "asked.txt", "--adapters", f"base,{sft}")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [list(row) for row in rows] == [["query", "base", sft, "agree", "valid"]] * 2
    assert rows[0]["base"]["text"] == rows[0][sft]["text"]  # an adapter that was not trained changes nothing
    assert all(row["agree"] == row["valid"] == row["base"]["valid"] for row in rows)
    assert code == (0 if all(row["valid"] for row in rows) else 1)
    assert f"they agree on {sum(row['agree'] for row in rows)} of 2" in err and f"{sft}: " in err
    assert [adapter for _, adapter in run.asked[-2:]] == [None, sft]
    assert {settings.prompt.schema_rendering for settings, _ in run.asked[-2:]} == {"json"}


@pytest.mark.parametrize("flags", [["--both"], ["--defer-to", "t"], ["--teacher-model", "embedded-teacher"]])
def test_models_side_by_side_exclude_the_teacher(run, trained, flags):
    with pytest.raises(SettingsError, match="--adapters asks these students alone"):
        run("--run", "mine", *INLINE, "to Oslo", "--adapters", "base,mine", *flags)


def test_a_model_that_is_not_there_is_refused(run, trained):
    with pytest.raises(UserError, match="there is no adapter in nobody, nor a run of that name"):
        run("--run", "mine", *INLINE, "to Oslo", "--adapters", "base,nobody")
