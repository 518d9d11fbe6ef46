"""A person's own requests are answered without a run: with or without answers, in every layout of --schemas."""

import json
from dataclasses import replace
from types import SimpleNamespace

import exports
import pytest
from fake_ollama import after_probe, fake_ollama
from hotel_requests import FORM, OWN, OWN_ANSWERS, dataset_row, evaluate, let_students_write, own_row

from schema_student.cli.main import VERBS
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_jsonl
from schema_student.core.paths import evaluated, paths
from schema_student.core.records import DatasetRow
from schema_student.core.settings import default_settings
from schema_student.data.dataset import draw_date
from schema_student.evaluation import eval_data
from schema_student.evaluation.completions import Completion
from schema_student.evaluation.eval_data import read_eval_data
from schema_student.evaluation.verdicts import ask_teacher, grade_completion
from schema_student.report.run_artifacts import read_students


@pytest.fixture
def canned(monkeypatch):
    """A student that writes OWN_ANSWERS, whatever its weights."""
    let_students_write(monkeypatch, OWN_ANSWERS)


def read(tmp_path, rows, **changes):
    write_jsonl(tmp_path / "mine.jsonl", rows)
    return read_eval_data(default_settings(eval_data=str(tmp_path / "mine.jsonl"), **changes))


def test_requests_are_answered_without_a_run_and_those_without_an_answer_are_said_to_be(tmp_path, canned, capsys):
    write_jsonl(tmp_path / "mine.jsonl", OWN)
    folder = evaluate(tmp_path, "--eval-data", str(tmp_path / "mine.jsonl"))
    assert folder.name == "student-base-on-mine"
    rows = {row["query"]: row for row in read_jsonl(folder / "evaluation_results.jsonl")}
    assert [rows[query]["semantic_pass"] for query in OWN_ANSWERS] == [True, False, None, False]
    assert [rows[query]["schema_valid"] for query in OWN_ANSWERS] == [True, True, True, False]
    assert [rows[query]["teacher_verdict"] for query in OWN_ANSWERS] == [True, False, None, None]
    unknown = rows["somewhere nice"]
    assert (unknown["exact_match"], unknown["target_canonical"], unknown["teacher_error"]) == (None, None, None)
    assert unknown["p_truth"] is None and rows["two nights in Lyon"]["p_truth"] is not None
    summary = read_json(folder / "evaluation_summary.json")
    assert summary["eval_data"] == "mine.jsonl"
    overall = summary["overall"]
    assert (overall["semantic_pass_rate"]["k"], overall["semantic_pass_rate"]["n"]) == (1, 3)
    assert (overall["schema_valid_rate"]["k"], overall["schema_valid_rate"]["n"]) == (3, 4)
    assert overall["exact_match_rate"]["n"] == overall["semantic_match_target_rate"]["n"] == 2
    assert summary["without_answer"] == "2 of 4 requests have no answer: validity alone is judged"
    assert summary["without_answer"] in capsys.readouterr().out
    where = paths(default_settings(output_dir=str(tmp_path)))
    assert read_students(where, "student") == []  # a run's report is of the run's requests


def test_a_language_model_judges_what_has_no_answer():
    request = replace(DatasetRow.from_json(dataset_row("somewhere nice", {})), ast_json=None)
    graded = grade_completion(request, Completion("p", OWN_ANSWERS["somewhere nice"]), False)
    asked = []

    def teacher(embedded):
        def ask_many(asks):
            asked.extend(asks)
            return [{"is_good": True, "reason": "nice"} for _ in asks]

        return SimpleNamespace(chat=SimpleNamespace(choice=SimpleNamespace(embedded=embedded)), ask_many=ask_many)

    assert ask_teacher([graded], teacher(embedded=True))[0].row.semantic_pass is None and not asked
    assert ask_teacher([graded], teacher(embedded=False))[0].row.semantic_pass is True
    assert asked[0][1]["reference"] is None


def test_rows_of_other_splits_are_left_out(tmp_path, capsys):
    rows = [own_row(f"{split} {i}", split=split) for split in ("train", "dev", "test") for i in range(2)]
    rows.append(own_row("of none"))
    assert [row.query for row in read(tmp_path, rows)] == ["test 0", "test 1", "of none"]
    assert "3 of 7 requests are of --eval-splits, or of no split" in capsys.readouterr().out
    assert [row.query for row in read(tmp_path, rows, eval_splits=["train"])] == ["train 0", "train 1"]
    with pytest.raises(UserError, match="of split train, validation: give --eval-splits"):
        read(tmp_path, rows[:4])


def test_a_limit_takes_some_and_what_stands_there_twice_is_taken_once(tmp_path, capsys):
    rows = [own_row(f"request {i % 6}") for i in range(12)]
    assert [row.query for row in read(tmp_path, rows, eval_limit=3)] == ["request 0", "request 2", "request 4"]
    assert "6 requests stand there twice" in capsys.readouterr().err
    assert [row.query for row in read(tmp_path, rows, eval_limit=3, max_samples=2)] == ["request 0", "request 2"]
    assert "  requests of test: 2 of 3, by --max-samples\n" in capsys.readouterr().out


def test_rows_of_a_dataset_are_taken_as_they_are(tmp_path):
    rows = [dataset_row(f"q {split}", {"city": "Lyon"}, split) for split in ("train", "test_seen", "test_unseen")]
    rows.append(dataset_row("q wrong", {"city": "Lyon"}, is_valid=False))
    assert [(row.query, row.split) for row in read(tmp_path, rows)] == [
        ("q test_seen", "test_seen"),
        ("q test_unseen", "test_unseen"),
    ]


def test_a_request_is_what_a_data_set_would_hold_of_it(tmp_path):
    accepted = {"city": ["Lyon", "Paris"]}
    rows = [
        own_row("one", {"city": "Lyon"}, accepted=accepted),
        {**own_row("two"), "schema": {**FORM, "title": "Caf\u00e9s"}, "schema_id": "other"},
        own_row(""),
    ]
    told = {"current_date": "2026-01-31", "is_valid": True, "split": "test", "source": "user"}
    one, two = read(tmp_path, rows)
    assert one == DatasetRow(
        **told, schema_id="form", domain="form", schema_json=json.dumps(FORM), query="one", accepted=accepted,
        ast_json='{"city":"Lyon"}',
    )  # fmt: skip
    assert (two.domain, two.ast_json, two.schema["title"]) == ("Caf\u00e9s", None, "Caf\u00e9s")
    assert "Caf\u00e9s" in two.schema_json  # as it stands there


def test_a_data_set_is_known_by_its_first_row(tmp_path):
    path, row = tmp_path / "mine.jsonl", dataset_row("q", {"city": "Lyon"})
    settings = default_settings(eval_data=str(path))
    for before in ("", "\ufeff", "\n \n"):
        path.write_text(before + json.dumps({**row, "domain": "known"}) + "\n", encoding="utf-8")
        assert [each.domain for each in read_eval_data(settings)] == ["known"]
    path.write_text(json.dumps({**row, **own_row("own")}))  # a schema of its own: not a row of d_03
    assert [each.domain for each in read_eval_data(settings)] == ["form"]
    for text in ("", "[1]", "no JSON"):
        path.write_text(text)
        with pytest.raises(UserError):
            read_eval_data(settings)
    with pytest.raises(UserError, match=r"nowhere.jsonl is not there; it takes rows"):
        read_eval_data(default_settings(eval_data=str(tmp_path / "nowhere.jsonl")))


def test_a_limit_is_that_of_each_split(tmp_path):
    rows = [own_row(f"{split} {i}", split=split) for split in ("test", "train") for i in range(4)]
    found = read(tmp_path, rows, eval_splits=["train", "test_seen"], eval_limit=1)
    assert [row.query for row in found] == ["test 0", "train 0"]
    assert len(read(tmp_path, rows, eval_splits=["train", "test_seen"])) == 8


def test_a_summary_says_who_judges_what_has_no_answer():
    rows = [SimpleNamespace(semantic_match_target=right) for right in (True, False, None)]
    settings = default_settings(eval_data="a/mine.jsonl")
    assert eval_data.describe_eval_data(default_settings(), rows, None) == {}
    assert eval_data.describe_eval_data(settings, rows[:2], None) == {"eval_data": "mine.jsonl"}
    teachers = {
        None: "validity alone is judged",
        True: "validity alone is judged",
        False: "as asked is the teacher's word",
    }
    for embedded, said in teachers.items():
        teacher = None if embedded is None else SimpleNamespace(embedded=embedded)
        assert eval_data.describe_eval_data(settings, rows, teacher) == {
            "eval_data": "mine.jsonl",
            "without_answer": f"1 of 3 requests have no answer: {said}",
        }


def test_a_stamp_holds_how_requests_of_ones_own_are_read():
    assert eval_data.stamp_eval_data(default_settings()) == {}
    settings = default_settings(eval_data="mine.jsonl", draft="2019-09", date_start="2026-02-01")
    known = {"draft": "2019-09", "date_start": "2026-02-01", "date_end": settings.value("date_end")}
    assert eval_data.stamp_eval_data(settings) == settings.dump("own_schemas") | known


def test_a_request_without_a_day_is_asked_on_the_day_that_a_run_would_draw(tmp_path):
    row = own_row("two nights", {"city": "Lyon"})
    del row["current_date"]
    days = [read(tmp_path, [row], seed=seed)[0].current_date for seed in (1, 1, 2)]
    assert days[0] == days[1] == draw_date(default_settings(seed=1), "form", "two nights") != days[2]


def test_an_adapter_reads_prompts_as_it_was_trained(tmp_path):
    run = exports.write_run(tmp_path / "run", schema_rendering="json")
    write_jsonl(tmp_path / "mine.jsonl", [own_row("one", {"city": "Lyon"})])
    flags = ["--adapter", str(paths(run).sft_checkpoint), "--eval-data", str(tmp_path / "mine.jsonl")]
    VERBS["evaluate"]([*flags, "--no-judge-valid", "--output-dir", str(tmp_path / "elsewhere")])
    (folder,) = (tmp_path / "elsewhere" / "student_runs" / "eval").iterdir()
    (row,) = read_jsonl(folder / "evaluation_results.jsonl")
    assert folder.name == "student-sft-on-mine" and json.dumps(FORM["required"]) in row["prompt_text"]


def test_what_cannot_be_evaluated_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"has no request to answer; it takes rows \{schema_id"):
        read(tmp_path, [{"schema_id": "form", "schema": FORM}])
    with pytest.raises(SettingsError, match="--eval-data and --eval-extra"):
        evaluated(default_settings(eval_data="mine.jsonl", eval_extra=True))
    with pytest.raises(SettingsError, match="gives no name of an evaluation: rename the file"):
        evaluated(default_settings(eval_data="???.jsonl"))
    there = default_settings(eval_data="a/mine.jsonl", endpoint="http://here:8000")
    assert evaluated(there)[0] == "student-endpoint-here-8000-on-mine"


def test_the_teacher_answers_as_a_student_of_its_own(tmp_path, capsys):
    """It answers one request right, one wrong, one not at all; what it answered before it is not asked again."""

    def chat(body, number):
        payload = body["messages"][-1]["content"]
        if "is_good" in json.dumps(body["format"]):
            return {"is_good": "two nights" in payload, "reason": "so"}
        return {"city": "Lyon", "nights": 2} if "Paris for long" in payload or "two nights" in payload else "no JSON"

    write_jsonl(tmp_path / "mine.jsonl", OWN[:3])
    with fake_ollama(after_probe(chat)) as fake:
        flags = ["--eval-data", str(tmp_path / "mine.jsonl"), "--teacher-model", "m:1", "--teacher-host", fake.host]
        flags += ["--output-dir", str(tmp_path), "--teacher-retries", "0", "--eval-student", "teacher"]
        VERBS["evaluate"](flags)
        asked = len(fake.bodies)
        VERBS["evaluate"]([*flags, "--overwrite"])
        again = [body for body in fake.bodies[asked:] if "somewhere nice" not in json.dumps(body["messages"])]
        assert again == []
        with pytest.raises(SettingsError, match="--samples are drawn from a student"):
            VERBS["evaluate"]([*flags, "--samples", "4"])
    (folder,) = (tmp_path / "student_runs" / "eval").iterdir()
    rows = read_jsonl(folder / "evaluation_results.jsonl")
    assert folder.name == "student-teacher-on-mine"
    assert [row["semantic_pass"] for row in rows] == [True, False, False]
    assert rows[2]["parse_error"].startswith("the teacher gave no usable answer") and not rows[2]["too_long"]
    assert read_json(folder / "evaluation_summary.json")["student"].startswith("m:1")
