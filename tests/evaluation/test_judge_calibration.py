"""A judge is held against what is known: which right answers it rejects, which wrong ones it accepts."""

from types import SimpleNamespace

import pytest
from fake_ollama import after_probe, fake_ollama
from hotel_requests import OWN, own_row

from schema_student.cli.main import VERBS
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.core.statistics import cohen_kappa
from schema_student.evaluation.eval_data import read_eval_data
from schema_student.evaluation.judge_calibration import calibrate, is_known, list_cases, measure


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


def test_what_the_judge_wrote_is_no_truth_about_it(tmp_path):
    _, (request, *_) = requests_of(tmp_path, OWN)
    for writer, judge, known in (
        (None, "m:1", True),
        ("user", "m:1", True),
        ("m:1", "m:1", False),
        ("m:2", "m:1", True),
        ("embedded-teacher", "embedded-teacher", True),
    ):
        row = type(request).from_json({**request.as_json(), "teacher_model": writer})
        assert is_known(row, SimpleNamespace(model=judge)) == known
    settings, _ = requests_of(tmp_path, [own_row("somewhere nice")])
    with pytest.raises(UserError, match="no request whose answer is known otherwise than from embedded"):
        calibrate(settings)
