"""The page says when an answer can be trusted: thresholds of validation requests, errors of the tests."""

import math

import pytest
import report_run

from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow
from schema_student.core.settings import default_settings
from schema_student.core.statistics import wilson
from schema_student.report.charts import Figure, Lines, Series
from schema_student.report.pages import collect, write_report
from schema_student.report.trust import describe_trust, say_trust, show_trust


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


def test_the_curves_of_trust_are_shares_of_answers_with_their_intervals():
    few, enough = wilson(2, 4), wilson(4, 5)
    label = {"color": "blue", "dots": True}
    known = Series("SFT", points=[(0.9, 0.8)], band=[(0.9, enough["low"], enough["high"])], **label)
    assert few["n"] == 4
    figure = show_trust(describe([(0.9, 0.5, 0.0), (0.1, 1.0, 0.25)]))
    assert figure == Figure(
        "trust",
        "When to trust an answer of the student: 400 test requests",
        (
            Lines(
                "Is confidence what it says?",
                "right answers",
                (Series("as said", "gray", [(0.0, 0.0), (1.0, 1.0)], faint=True), known),
                percent=True,
                x="confidence",
                shares=True,
            ),
            Lines(
                "Errors, the surest answers first",
                "wrong answers of those answered",
                (Series("SFT", "blue", [(0.5, 0.0), (1.0, 0.25)]),),
                percent=True,
                from_zero=True,
                x="share of requests that are answered",
                shares=True,
            ),
        ),
    )
    assert show_trust(None) is None
    curve = show_trust(describe([(1.0, i / 320, 0.0) for i in range(1, 322)])).panels[1].series[0].points
    assert curve == [(i / 320, 0.0) for i in range(1, 322, 3)] + [(321 / 320, 0.0)]


def test_what_may_be_answered_is_told_in_a_sentence():
    told = {"most_errors": 0.05, "threshold": 0.75, "coverage": wilson(30, 40), "errors": wilson(3, 30)}
    others = [{**told, "most_errors": 0.1}, {**told, "coverage": wilson(0, 40)}]
    assert say_trust(describe([], [*others, told])) == (
        "The student answers 75.0% of test requests by itself at 10.0% errors (95% interval 3.5% to 25.6%), where it "
        "leaves those of a confidence below 0.750 to a teacher: ask, serve --defer-to TEACHER --below 0.750. Of all "
        "requests it answers 10.0% wrong."
    )
    assert say_trust(describe([], others)).startswith("No threshold of confidence kept errors")


def test_trust_is_measured_on_the_tests_by_the_calibration_of_validation(tmp_path):
    where = paths(default_settings(output_dir=str(tmp_path), run="r"))
    like = {"schema_id": "s", "split": "test_seen", "current_date": "", "raw_output": "", "rank": 5}
    told = [(True, 0.75, True), (True, 0.75, False), (True, 0.5, True), (False, None, False), (True, 0.5, None)]
    rows = [
        EvaluationRow(query="", schema_valid=valid, log_p=p and math.log(p), semantic_pass=right, **like)
        for valid, p, right in told
    ]
    student = {"keys": ["base", "sft"], "stage": "sft", "label": "SFT", "who": "it", "color": "blue", "rows": rows}
    thresholds = [{"most_errors": 0.1, "threshold": 0.6}, {"most_errors": 0.1, "threshold": 1}, "x", {"threshold": 0.5}]
    found = {"intercept": 0.0, "slope": 1.0, "requests": 60, "thresholds": thresholds}
    write_json(where.eval_dir("r-sft") / "confidence.json", found)
    assert describe_trust(where, [student, {**student, "keys": ["control"], "stage": "control"}]) == {
        **{"label": "SFT", "who": "it", "color": "blue", "n": 4, "calibrated_on": 60, "intercept": 0.0, "slope": 1.0},
        "errors": 0.5,  # of points (0.75, right), (0.75, wrong), (0.5, right), (0, wrong)
        "aurc": round((0.25 + 0.5 + 1 / 3 + 0.5) / 4 + 0.0625, 6),  # the first two in either order
        "least_aurc": round((0 + 0 + 1 / 3 + 0.5) / 4, 6),
        "ece": round((2 * 0.25 + 0.5) / 4, 6),
        "brier": round((0.0625 + 0.5625 + 0.25) / 4, 6),
        "reliability": [
            {"low": 0.0, "high": 0.1, "mean": 0.0, "right": wilson(0, 1)},
            {"low": 0.5, "high": 0.6, "mean": 0.5, "right": wilson(1, 1)},
            {"low": 0.7, "high": 0.8, "mean": 0.75, "right": wilson(1, 2)},
        ],
        "risk": [(0.75, 0.5, 0.5), (0.5, 0.75, 1 / 3), (0.0, 1.0, 0.5)],
        "thresholds": [{"most_errors": 0.1, "threshold": 0.6, "coverage": wilson(2, 4), "errors": wilson(1, 2)}],
    }
    for stage in (None, "control"):
        assert describe_trust(where, [{**student, "stage": stage}]) is None
    write_json(where.eval_dir("r-base") / "confidence.json", {**found, "requests": 7, "thresholds": []})
    told = describe_trust(where, [{**student, "keys": ["sft", "base"]}])
    assert (told["calibrated_on"], told["thresholds"]) == (7, [])
    for name in ("intercept", "slope"):
        write_json(where.eval_dir("r-sft") / "confidence.json", {**found, name: None})
        assert describe_trust(where, [student]) is None
