"""A judge is held against what is known: which right answers it rejects, which wrong ones it accepts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_ollama import after_probe, fake_ollama
from hotel_requests import FORM, OWN, own_row

from schema_student.cli.main import VERBS
from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow
from schema_student.core.settings import default_settings
from schema_student.core.stamps import beside, digest
from schema_student.core.statistics import cohen_kappa, wilson
from schema_student.evaluation import judge_calibration
from schema_student.evaluation.eval_data import read_eval_data
from schema_student.evaluation.judge_calibration import (
    Case,
    calibrate,
    calibration_dir,
    describe,
    is_known,
    judge_cases,
    list_cases,
    measure,
    summarize,
)
from schema_student.schema.compiling import SchemaError
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.faults import TeacherFailure


def requests_of(tmp_path, rows):
    write_jsonl(tmp_path / "mine.jsonl", rows)
    settings = default_settings(
        eval_data=str(tmp_path / "mine.jsonl"), output_dir=str(tmp_path), teacher_model="embedded-teacher"
    )
    return settings, read_eval_data(settings)


def answered(request, text, valid=True):
    told = {"schema_id": request.schema_id, "query": request.query, "current_date": request.current_date}
    return EvaluationRow(**told, split="test", raw_output=text, rank=5, schema_valid=valid)


def test_agreement_kappa_and_both_kinds_of_error_are_counted():
    table = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    rows = [{"right": right, "verdict": verdict} for right, verdict in [*table, (True, None)]]
    found = measure(rows)
    assert (found["answers"], found["errors"], found["kappa"]) == (51, 1, 0.4)
    assert (found["agreement"]["k"], found["agreement"]["n"]) == (35, 50)
    assert (found["false_accept_rate"]["k"], found["false_accept_rate"]["n"]) == (10, 25)
    assert (found["false_reject_rate"]["k"], found["false_reject_rate"]["n"]) == (5, 25)


@pytest.mark.parametrize(
    ("table", "kappa"), [((5, 0, 0, 5), 1.0), ((0, 5, 5, 0), -1.0), ((9, 0, 0, 0), None), ((0, 0, 0, 0), None)]
)
def test_kappa_is_beyond_chance(table, kappa):
    assert cohen_kappa(*table) == kappa


def test_answers_of_known_truth_are_listed_each_meaning_once(tmp_path):
    accepted = {"city": ["Lyon"], "nights": [2, 3]}
    row = own_row("two nights in Lyon", {"city": "Lyon", "nights": 2}, accepted=accepted)
    _, (request,) = requests_of(tmp_path, [row])
    students = ['{"nights":2,"city":"Lyon"}', '{"city":"Paris"}', '{"city":"Paris"}', "not JSON"]
    doubtful = [answered(request, '{"city":"Rome"}', True), answered(request, '{"city":"Paris","nights":9}', False)]
    rows = [answered(request, text, text != "not JSON") for text in students] + doubtful  # valid in one way alone
    cases = [(case.source, case.answer, case.right) for case in list_cases([request], rows)]
    assert cases[:2] == [
        ("the known answer", {"city": "Lyon", "nights": 2}, True),
        ("another accepted one", {"city": "Lyon", "nights": 3}, True),
    ]
    assert ("of a student", {"city": "Paris"}, False) in cases
    assert [source for source, _, _ in cases].count("of a student") == 1
    assert all(not right for source, _, right in cases if source == "a value changed")
    values = [answer for _, answer, _ in cases]
    assert all(values.count(value) == 1 for value in values) and {"city": "Rome"} not in values
    assert [case.request for case in list_cases([request], rows)] == [request] * len(cases)
    other = [replace(each, current_date="2026-02-01") for each in rows]  # answers to another request
    assert all(case.source != "of a student" for case in list_cases([request], other))
    assert list_cases([request], rows) == list_cases([request], rows)  # the same are drawn
    with pytest.raises(SchemaError, match=r"^form: "):
        list_cases([replace(request, schema_json='{"type": 7}')], [])


def test_the_embedded_judge_agrees_with_what_it_knows(tmp_path, capsys):
    settings, _ = requests_of(tmp_path, OWN)
    summary = read_json(calibrate(settings))
    found = summary["with_reference"]
    assert (summary["requests"], summary["left_out"]) == (2, 2) and summary["without_reference"] is None
    assert (
        found["by_source"]["the known answer"]["answers"] == 2 and found["by_source"]["a value changed"]["answers"] > 0
    )
    assert found["kappa"] == 1.0 and summary["false_accepts"] == summary["false_rejects"] == []
    assert "2 requests are left out" in capsys.readouterr().out
    calibrate(settings)
    assert "done already" in capsys.readouterr().out


def test_a_language_model_is_judged_with_a_reference_and_without_and_its_false_verdicts_are_listed(tmp_path, capsys):
    """It accepts all that it is shown a reference for, and rejects all else."""

    def judge(body, number):
        text = body["messages"][-1]["content"]
        return {"is_good": '"reference": null' not in text and '"reference":null' not in text, "reason": "so"}

    settings, _ = requests_of(tmp_path, OWN[:2])
    name = "student-base-on-mine"
    path = paths(settings).evals / name / "evaluation_results.jsonl"
    told = {"schema_id": "form", "query": "Paris for long", "current_date": "2026-01-31", "split": "test", "rank": 4}
    row = EvaluationRow(**told, raw_output='{"city":"Lyon"}', schema_valid=True)
    write_jsonl(path, [row.as_json()])
    write_json(path.with_name(f"{path.name}.meta.json"), {"digest": digest(path)})
    with fake_ollama(after_probe(judge)) as fake:
        flags = ["--eval-data", str(tmp_path / "mine.jsonl"), "--output-dir", str(tmp_path)]
        VERBS["calibrate-judge"]([*flags, "--teacher-model", "m:1", "--teacher-host", fake.host])
    folder = tmp_path / "judge" / "student-on-mine-by-m-1"
    summary, rows = read_json(folder / "judge_summary.json"), read_jsonl(folder / "judge_results.jsonl")
    with_it, without = summary["with_reference"], summary["without_reference"]
    assert with_it["false_accept_rate"]["rate"] == 1.0 and with_it["false_reject_rate"]["rate"] == 0.0
    assert without["false_accept_rate"]["rate"] == 0.0 and without["false_reject_rate"]["rate"] == 1.0
    assert with_it["kappa"] == without["kappa"] == 0.0
    assert {row["answer"]["city"] for row in summary["false_accepts"] if row["source"] == "of a student"} == {"Lyon"}
    assert [row["blind"] for row in summary["false_rejects"]] == [True, True]
    assert len(rows) == 2 * with_it["answers"] and {row["reason"] for row in rows} == {"so"}
    assert "false accept: 'two nights in Lyon' -> {" in capsys.readouterr().out


def verdict_row(source="the known answer", right=True, verdict=True, blind=False, **more):
    told = {"source": source, "right": right, "verdict": verdict, "blind": blind, "query": "q", "answer": {"n": 1}}
    return {**told, **more}


def test_verdicts_are_summed_up_with_the_reference_and_without_over_all_and_by_source():
    rows = [verdict_row(), verdict_row(verdict=False), verdict_row("a value changed", right=False, verdict=False)]
    rows += [verdict_row(verdict=None), verdict_row(right=False, blind=True, query="blind")]
    found = summarize(rows)
    sources = {"the known answer": measure([rows[0], rows[1], rows[3]]), "a value changed": measure(rows[2:3])}
    assert found == {
        "with_reference": {**measure(rows[:4]), "by_source": sources},
        "without_reference": {**measure(rows[4:]), "by_source": {"the known answer": measure(rows[4:])}},
        "false_accepts": rows[4:],
        "false_rejects": rows[1:2],
    }
    nothing = {"rate": None, "low": None, "high": None, "n": 0, "k": 0}
    assert measure(rows[2:3]) == {
        "answers": 1,
        "errors": 0,
        "agreement": wilson(1, 1),
        "kappa": None,
        "false_accept_rate": wilson(0, 1),
        "false_reject_rate": nothing,
    }
    assert summarize(rows[:4])["without_reference"] is None
    many = summarize([verdict_row(right=False, query=f"q{i}") for i in range(51)])["false_accepts"]
    assert [row["query"] for row in many] == [f"q{i}" for i in range(50)]


def test_what_verdicts_come_to_is_said_with_the_first_false_ones():
    rows = [verdict_row(right=right, query=f"q{i}") for i, right in enumerate([True, True, False, False, False, False])]
    rows += [verdict_row(verdict=None), verdict_row(verdict=False, blind=True, query="x" * 81, answer="y" * 120)]
    summary = {"judged_by": "m:1", "requests": 7, "left_out": 2, **summarize(rows)}
    assert describe(summary) == [
        "m:1 as a judge, on 7 requests with a known answer",
        "  2 requests are left out: their answers are the judge's own, or not known",
        "  with reference: 7 answers, agreement 33.3%, false accept rate 100.0%, false reject rate 0.0%, kappa 0.00; "
        "1 failed",
        "  without reference: 1 answers, agreement 0.0%, false reject rate 100.0%, kappa 0.00",
        *(f"  false accept: 'q{i}' -> {{\"n\":1}}" for i in (2, 3, 4)),
        f"  false reject, without a reference: '{'x' * 80} ... (1 more characters)' -> "
        f'"{"y" * 119} ... (2 more characters)',
    ]
    summary |= {"left_out": 0, **summarize([verdict_row(verdict=None)])}
    assert describe(summary)[1:] == ["  with reference: 1 answers, kappa -; 1 failed"]


def test_a_judge_is_asked_with_the_known_answer_or_without_and_may_fail(tmp_path):
    row = own_row("two nights", {"city": "Lyon"}, accepted={"city": ["Lyon"]})
    _, (request,) = requests_of(tmp_path, [row])
    asked, case = [], Case(request, "a value changed", {"city": "Paris"}, False)

    def ask_many(asks):
        asked.extend(asks)
        return [{"is_good": False, "reason": "so"}, TeacherFailure("judge", "timed out")]

    rows = judge_cases([(case, False), (case, True)], SimpleNamespace(ask_many=ask_many))
    known = {"schema": FORM, "query": "two nights", "current_date": "2026-01-31", "answer": {"city": "Paris"}}
    assert asked == [
        ("judge", {**known, "reference": {"city": "Lyon"}, "accepted": {"city": ["Lyon"]}}),
        ("judge", {**known, "reference": None, "accepted": None}),
    ]
    told = {"schema_id": "form", "query": "two nights", "current_date": "2026-01-31", "split": "test"}
    told |= {"source": "a value changed", "answer": {"city": "Paris"}, "known_answer": {"city": "Lyon"}, "right": False}
    assert rows == [
        {**told, "blind": False, "verdict": False, "reason": "so", "error": None},
        {**told, "blind": True, "verdict": None, "reason": None, "error": "timed out"},
    ]


def test_finished_evaluations_of_the_run_are_judged_and_what_is_written_goes_on(tmp_path, monkeypatch, capsys):
    settings, _ = requests_of(tmp_path, OWN)
    told = {"schema_id": "form", "current_date": "2026-01-31", "split": "test", "rank": 4, "schema_valid": True}
    for name in ("student-a", "student-b", "other-a"):
        path = paths(settings).evals / name / "evaluation_results.jsonl"
        row = EvaluationRow(**told, query="Paris for long", raw_output=f'{{"city":"Paris","nights":{len(name)}}}')
        write_jsonl(path, [row.as_json()])
        if name != "student-b":  # which is not finished
            write_json(beside(path, "meta"), {"digest": digest(path)})
    assert [path.parent.name for path in judge_calibration.find_evaluations(settings)] == ["student-a"]
    monkeypatch.setattr(judge_calibration, "CHUNK", 2)
    judge, calls = judge_calibration.judge_cases, []

    def dying(cases, teacher):
        calls.append(len(cases))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(cases, teacher)

    monkeypatch.setattr(judge_calibration, "judge_cases", dying)
    with pytest.raises(KeyboardInterrupt):
        calibrate(settings)
    summary = read_json(calibrate(settings))
    results = calibration_dir(settings) / "judge_results.jsonl"
    rows, meta = read_jsonl(results), read_meta(results)
    assert sum(calls) == len(rows) + 2 and sum(row["source"] == "of a student" for row in rows) == 1
    assert [*meta["inputs"]] == ["mine.jsonl", "evaluation_results.jsonl"]
    assert meta["teacher"] == resolve_teacher(settings).stamp and meta["settings"] == {
        **settings.dump("answers", "own_schemas"),
        **{name: settings.value(name) for name in ("date_start", "date_end", "eval_splits", "eval_limit")},
    }
    assert summary == {"judged_by": summary["judged_by"], "requests": 2, "left_out": 2, **summarize(rows)}
    said = capsys.readouterr().out
    assert f"  judged {len(rows)}/{len(rows)} answers" in said and said.count("  judged ") == (len(rows) + 1) // 2


def test_what_the_judge_wrote_is_no_truth_about_it(tmp_path):
    _, (request, *_) = requests_of(tmp_path, OWN)
    for writer, judge, known in (
        (None, "m:1", True),
        ("user", "m:1", True),
        ("m:1", "m:1", False),
        ("m:2", "m:1", True),
        ("embedded-teacher", "embedded-teacher", True),
    ):
        row = replace(request, teacher_model=writer)
        assert is_known(row, SimpleNamespace(model=judge)) == known
        assert not is_known(replace(row, ast_json=None), SimpleNamespace(model=judge))
    settings, _ = requests_of(tmp_path, [own_row("somewhere nice")])
    with pytest.raises(UserError, match="no request whose answer is known otherwise than from embedded"):
        calibrate(settings)
