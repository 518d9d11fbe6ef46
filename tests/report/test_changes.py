"""What an alignment changed, in words: likelihoods of right answers, kinds of errors; and the table of extra tests."""

from dataclasses import replace

import pytest
import report_run

from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow, read_rows
from schema_student.core.settings import default_settings
from schema_student.report.changes import compare_readings, compare_validity, count_fault_changes, say_changes
from schema_student.report.pages import collect, write_report


def rows(*p_truth, **more):
    like = EvaluationRow(schema_id="s", query="", split="test_seen", current_date="", raw_output="", rank=0)
    return [replace(like, query=str(i), p_truth=p, **more) for i, p in enumerate(p_truth)]


def test_the_change_of_the_likelihood_is_paired_and_in_units_of_its_error():
    found = compare_readings(rows(0.1, 0.5, 0.9, None), rows(0.2, 0.6, 1.0, 0.5))
    assert found["n"] == 3 and found["change"] == pytest.approx(0.1) and found["z"] > 1e6
    noisy = compare_readings(rows(0.1, 0.5), rows(0.2, 0.4))
    assert noisy["change"] == pytest.approx(0.0) and abs(noisy["z"]) < 1e-9
    assert compare_readings(rows(None), rows(0.5)) is None


def test_answers_that_became_valid_and_invalid_are_counted_on_the_prompts_of_both():
    def told(*valid):
        return [replace(row, schema_valid=ok) for row, ok in zip(rows(*[None] * len(valid)), valid, strict=True)]

    found = compare_validity(told(True, True, True, False, False), told(True, False, True, True, True, True))
    assert found == {"n": 5, "before": 3, "after": 4, "fixed": 2, "broken": 1, "p": 1.0}
    lost = compare_validity(told(*[True] * 8), told(*[False] * 8))
    assert (lost["fixed"], lost["broken"], lost["p"]) == (0, 8, 0.0078125)


def test_the_change_has_its_interval_z_and_p_and_one_over_schemas():
    before, after = rows(0.1, 0.5, 0.6, 0.2), rows(0.2, 0.4, 0.9, 0.5)
    before[2:] = [replace(row, schema_id="t") for row in before[2:]]
    after[2:] = [replace(row, schema_id="t") for row in after[2:]]
    found = compare_readings(before, after)
    assert (found["before"], found["after"]) == (pytest.approx(0.35), pytest.approx(0.5))
    assert (found["change"], found["error"]) == (pytest.approx(0.15), pytest.approx(0.0957427))  # sqrt(0.11 / 3) / 2
    assert (found["z"], found["p"]) == (pytest.approx(1.566699), pytest.approx(0.117185, abs=1e-5))
    assert (found["low"], found["high"]) == (pytest.approx(-0.037652, abs=1e-5), pytest.approx(0.337652, abs=1e-5))
    found["by_schema"] = {name: round(value, 6) for name, value in found["by_schema"].items()}
    assert found["by_schema"] == {"low": 0.0, "high": 0.3, "schemas": 2}


def test_the_kinds_that_changed_most_are_named_first_and_the_rest_is_counted():
    def failed(query, *keywords):
        broken = [{"path": "", "keyword": keyword, "message": ""} for keyword in keywords]
        return replace(rows(None)[0], query=query, parsed=True, violations=broken, rank=3)

    before = [failed("0", "f", "e", "d", "c", "b", "same"), failed("1", "b", "a")]
    after = [failed("0", "same"), failed("1")]
    (said,) = say_changes(before, after)
    assert said == "Errors that went: b (2 -> 0); a (1 -> 0); c (1 -> 0); d (1 -> 0); and 2 more."
    assert [kind for kind, *_ in count_fault_changes(before, after)] == [*"bacdef"]


def test_errors_that_went_and_came_are_named_with_their_counts():
    broken = [{"path": "/steps/0/name", "keyword": "enum", "message": ""}]
    before = [replace(row, parsed=True, violations=broken, rank=3) for row in rows(0.1, 0.1)]
    after = [replace(before[0]), *rows(0.2, truncated=True)]
    assert count_fault_changes(before, after) == [("cut off", 0, 1), ("enum /steps/*/name", 2, 1)]
    said = say_changes(before, after)
    assert said[1:] == ["Errors that went: enum /steps/*/name (2 -> 1).", "Errors that came: cut off (0 -> 1)."]


def test_the_page_says_the_change_of_the_likelihood_and_has_a_table_of_extra_tests(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, ("base", "sft", "dpo", "control", "sft-extra", "dpo-extra"), prompts=40)
    for key, gain in {"sft": 0.0, "dpo": 0.1, "control": 0.02, "sft-extra": 0.0, "dpo-extra": 0.05}.items():
        path = paths(settings).eval_dir(f"student-{key}") / "evaluation_results.jsonl"
        read = read_rows(path, EvaluationRow)
        told = [replace(row, p_truth=0.5 + gain * (1 + i % 2)).as_json() for i, row in enumerate(read)]
        write_jsonl(path, told)
        report_run.finish(path, 30)
    facts = collect(settings)
    assert [student["key"] for student in facts["students"]] == ["base", "sft", "dpo", "control"]
    pairs = {(each["of"], each["key"]): each["said"][0] for each in facts["comparisons"] if each["said"]}
    assert "went from 50.0% to 65.0%: +15.00 points" in pairs["sft", "dpo"]
    assert "+12.00 points" in pairs["control", "dpo"] and "+3.00 points" in pairs["sft", "control"]
    first, second = facts["extra"]
    assert first["is_first"] and second["reading"]["change"] == pytest.approx(0.075)
    html = write_report(settings).read_text()
    text = (paths(settings).report_dir / "report.md").read_text()
    for page in (html, text):
        assert "Extra tests" in page and "+7.50" in page and "went from 50.0% to 65.0%" in page
    assert read_jsonl(paths(settings).eval_dir("student-dpo-extra") / "evaluation_results.jsonl")
