"""The page says when an answer can be trusted: thresholds of validation requests, errors of the tests."""

import pytest
import report_run

from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.core.statistics import wilson
from schema_student.report.pages import collect, write_report
from schema_student.report.trust import say_trust, show_trust


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    settings = default_settings(output_dir=str(tmp_path_factory.mktemp("trust")))
    report_run.write_run(settings, keys=("base", "sft"), prompts=50)
    folder = paths(settings).eval_dir("student-sft")
    path = folder / "evaluation_results.jsonl"
    rows = read_jsonl(path)
    for i, row in enumerate(rows):
        row["log_p"] = -0.01 - 0.002 * i if row["semantic_pass"] else -1.0 - 0.01 * i
    write_jsonl(path, rows)
    report_run.finish(path, 30)
    thresholds = [
        {"most_errors": 0.05, "threshold": 0.5, "coverage": {}, "errors": {}},
        {"most_errors": 0.1, "threshold": 0.2, "coverage": {}, "errors": {}},
    ]
    found = {"intercept": 0.0, "slope": 1.0, "requests": 60, "right": 40, "brier": 0.1, "thresholds": thresholds}
    write_json(folder / "confidence.json", found)
    return settings


def test_what_is_answered_by_itself_and_at_what_errors_is_that_of_the_tests(settings):
    found = collect(settings)["trust"]
    rows = read_jsonl(paths(settings).eval_dir("student-sft") / "evaluation_results.jsonl")
    right = sum(row["semantic_pass"] for row in rows)
    first = found["thresholds"][0]
    assert found["n"] == len(rows) == 100 and found["errors"] == pytest.approx(1 - right / 100)
    assert (first["coverage"]["k"], first["errors"]["k"], first["errors"]["n"]) == (right, 0, right)
    assert found["aurc"] == pytest.approx(found["least_aurc"])  # here every right answer is the surer one
    assert f"answers {right / 100:.1%} of test requests by itself at 0.0% errors" in say_trust(found)
    assert "--below 0.500" in say_trust(found)


def test_page_text_and_json_hold_it_and_the_curves(settings):
    html = write_report(settings).read_text()
    folder = paths(settings).report_dir
    assert "When to trust an answer" in html and "AURC" in html and "--defer-to TEACHER" in html
    assert "--defer-to TEACHER" in (folder / "report.md").read_text() and (folder / "trust.png").exists()
    found = read_json(folder / "report.json")
    assert found["trust"]["thresholds"][0]["threshold"] == 0.5 and "risk" not in found["trust"]
    reliability, risk = found["figures"]["trust"]["panels"]
    assert reliability["head"][0] == "confidence" and risk["head"][0] == "share of requests that are answered"
    assert risk["rows"][-1] == ["100.0%", f"{found['trust']['errors']:.1%}"]


def test_without_a_calibration_or_with_a_broken_one_nothing_is_said(settings):
    path = paths(settings).eval_dir("student-sft") / "confidence.json"
    whole = read_json(path)
    write_json(path, {**whole, "slope": None})
    assert collect(settings)["trust"] is None
    rows = paths(settings).eval_dir("student-sft") / "evaluation_results.jsonl"
    kept = read_jsonl(rows)
    write_json(path, whole)
    write_jsonl(rows, [{**row, "log_p": None} for row in kept])  # of an earlier version
    report_run.finish(rows, 30)
    assert collect(settings)["trust"] is None
    write_jsonl(rows, kept)
    report_run.finish(rows, 30)
    write_json(path, {**whole, "thresholds": ["x", {"threshold": None}]})
    assert "No threshold" in say_trust(collect(settings)["trust"])
    path.rename(path.with_name("kept.json"))
    assert collect(settings)["trust"] is None and "When to trust" not in write_report(settings).read_text()
    path.with_name("kept.json").rename(path)
    write_json(path, whole)


def test_requests_that_are_said_otherwise_have_a_table(settings):
    path = paths(settings).eval_dir("student-sft") / "robustness_summary.json"
    share = {"rate": 0.5, "low": 0.2, "high": 0.8, "n": 10, "k": 5}
    found = {"plain": {**share, "rate": 0.8}, "perturbed": share, "valid": share, "fixed": 1, "broken": 4}
    found |= {"difference": {"difference": -0.3, "low": -0.6, "high": 0.1, "n": 10}, "p": 0.375, "corrected": 0.75}
    write_json(path, {"kinds": {"typos": found}})
    html = write_report(settings).read_text()
    folder = paths(settings).report_dir
    for text in (html, (folder / "report.md").read_text()):
        assert "Requests that are said otherwise" in text and "typos" in text and "-30.0" in text and "0.750" in text
    students = {each["key"]: each for each in read_json(folder / "report.json")["students"]}
    assert students["sft"]["robustness"]["typos"]["broken"] == 4 and students["base"]["robustness"] == {}
    path.unlink()


def describe(risk, thresholds=()):
    told = {"label": "SFT", "who": "the student", "color": "blue", "n": 400, "errors": 0.1, "risk": risk}
    few, enough = ({"mean": 0.5, "right": wilson(2, 4)}, {"mean": 0.9, "right": wilson(4, 5)})
    return {**told, "reliability": [few, enough], "thresholds": list(thresholds)}


def test_bins_of_few_answers_are_not_drawn_and_a_long_curve_keeps_its_ends():
    curve = [(1 - i / 400, (i + 1) / 400, i / 4000) for i in range(400)]
    reliability, risk = show_trust(describe(curve)).panels
    assert [x for x, _ in reliability.series[1].points] == [0.9]
    points = risk.series[0].points
    assert len(points) <= 161 and (points[0], points[-1]) == ((1 / 400, 0.0), (1.0, 399 / 4000))
    short = show_trust(describe(curve[:3])).panels[1].series[0].points
    assert short == [(coverage, wrong) for _, coverage, wrong in curve[:3]]


def test_a_threshold_that_lets_nothing_through_is_none():
    nothing = {"most_errors": 0.05, "threshold": 0.5, "coverage": wilson(0, 10), "errors": wilson(0, 0)}
    assert say_trust(describe([], [nothing])).startswith("No threshold of confidence")
