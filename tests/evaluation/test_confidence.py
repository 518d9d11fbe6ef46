"""Confidence is fitted to validation requests: calibrated, ordered, honest about what may be answered without help."""

import math
import random
from dataclasses import replace

import pytest
from alignment_runs import ANSWER, settings_with_requests

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow
from schema_student.core.statistics import wilson
from schema_student.evaluation import confidence as c
from schema_student.evaluation import confidence_calibration as calibrated


def answers(n, seed, distort=lambda p: p):
    """Answers of a student that gives them p, of which distort(p) are right."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        p = rng.betavariate(3, 1)
        found.append((math.log(p), rng.random() < distort(p)))
    return found


def test_a_student_that_is_calibrated_already_is_left_as_it_is():
    found = c.fit_calibration(answers(4000, 1))
    assert found.intercept == pytest.approx(0, abs=0.15) and found.slope == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("counts", [(4, 3, 0.8, 4, 1, 0.4), (20, 20, math.exp(-0.01), 1, 0, math.exp(-10.0))])
def test_through_two_probabilities_the_fit_goes_through_platts_targets_of_both(counts):
    """Exact by two equations; the second table needs steps to be halved, or Newton's method runs away."""
    n1, right1, p1, n2, right2, p2 = counts
    drawn = [(math.log(p), i < k) for n, k, p in ((n1, right1, p1), (n2, right2, p2)) for i in range(n)]
    right, wrong = right1 + right2, n1 + n2 - right1 - right2
    means = [(k * (right + 1) / (right + 2) + (n - k) / (wrong + 2)) / n for n, k in ((n1, right1), (n2, right2))]
    (x1, y1), (x2, y2) = (
        (math.log(p / (1 - p)), math.log(mean / (1 - mean))) for p, mean in zip((p1, p2), means, strict=True)
    )
    slope = (y1 - y2) / (x1 - x2)
    found = c.fit_calibration(drawn)
    assert (found.intercept, found.slope) == (pytest.approx(y1 - slope * x1, abs=1e-4), pytest.approx(slope, abs=1e-4))
    assert (found.intercept, found.slope) == (round(found.intercept, 6), round(found.slope, 6))


def test_a_log_p_counts_as_no_nearer_to_0_than_it_is_rounded_to():
    same = c.Calibration(0.0, 1.0)
    assert [same.confidence(log_p) for log_p in (0.0, -1e-4, -2e-4, -1.0)] == [0.9999, 0.9999, 0.9998, 0.367879]


def test_eight_steps_of_newtons_method_reach_the_optimum(monkeypatch):
    monkeypatch.setattr(c, "STEPS", 8)
    drawn = answers(200, 4, lambda p: p**2)
    found, right = c.fit_calibration(drawn), sum(is_right for _, is_right in drawn)
    targets = {True: (right + 1) / (right + 2), False: 1 / (200 - right + 2)}  # Platt's
    errors = [found.confidence(log_p) - targets[is_right] for log_p, is_right in drawn]
    odds = [log_p - math.log(1 - math.exp(log_p)) for log_p, _ in drawn]
    assert sum(errors) == pytest.approx(0, abs=1e-3)
    assert sum(error * x for error, x in zip(errors, odds, strict=True)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("distort", [lambda p: p**3, lambda p: p**0.3], ids=["too sure", "not sure enough"])
def test_one_that_is_too_sure_or_not_sure_enough_is_put_right_on_other_answers(distort):
    raw = [(math.exp(log_p), right) for log_p, right in answers(2000, 2, distort)]
    found = c.fit_calibration(answers(2000, 3, distort))
    fitted = [(found.confidence(log_p), right) for log_p, right in answers(2000, 2, distort)]
    assert c.measure_ece(fitted) < 0.05 and 2 * c.measure_ece(fitted) < c.measure_ece(raw)
    assert c.measure_brier(fitted) < c.measure_brier(raw)


def test_calibration_error_weighs_bins_by_their_answers_and_brier_squares():
    points = [(0.95, True)] * 3 + [(0.55, False)]
    assert c.measure_ece(points) == 0.175  # (3 * 0.05 + 0.55) / 4
    assert c.measure_brier(points) == 0.0775  # (3 * 0.0025 + 0.3025) / 4
    assert c.measure_ece([]) is None and c.measure_brier([]) is None
    thirds = [(0.3, False), (0.2, True), (0.2, False)]
    assert c.measure_ece(thirds) == 0.3 and c.measure_brier(thirds) == 0.256667  # (0.09 + 0.64 + 0.04) / 3
    assert c.measure_aurc(thirds) == 0.805556  # (1 + (1 + 0.5) / 2 + 2 / 3) / 3


def test_bins_of_confidence_hold_their_lower_end_and_the_last_one_1():
    points = [(0.0, False), (0.09, False), (0.1, True), (0.15, False), (0.16, True), (1.0, True)]
    assert c.measure_reliability(points[::-1]) == [
        {"low": 0.0, "high": 0.1, "mean": 0.045, "right": wilson(0, 2)},
        {"low": 0.1, "high": 0.2, "mean": 0.136667, "right": wilson(2, 3)},
        {"low": 0.9, "high": 1.0, "mean": 1.0, "right": wilson(1, 1)},
    ]


@pytest.mark.parametrize("right", [True, False])
def test_where_all_is_right_or_nothing_the_fit_is_finite_and_leaves_a_doubt(right):
    found = c.fit_calibration([(-0.1 * i, right) for i in range(1, 31)] + [(-0.5, right)])
    assert 0 < found.confidence(-0.5) < 1 and (found.confidence(-0.5) > 0.9) == right
    separable = c.fit_calibration([(-0.01, True)] * 20 + [(-5.0, False)] * 20)
    assert math.isfinite(separable.slope) and separable.confidence(-0.01) > 0.9 > 0.1 > separable.confidence(-5.0)
    assert math.isfinite(c.fit_calibration([(-0.5, True), (-0.5, False)] * 15).slope)  # of one log p nothing is learnt
    assert 0 <= found.confidence(0.0) <= 1 and 0 <= found.confidence(-1e6) <= 1


def test_the_area_under_the_risk_curve_is_that_of_every_order_of_ties():
    points = [(0.9, True), (0.5, True), (0.5, False), (0.2, False)]
    orders = [[True, True, False, False], [True, False, True, False]]
    risks = [sum(order[: k + 1].count(False) / (k + 1) for k in range(4)) / 4 for order in orders]
    assert c.measure_aurc(points) == pytest.approx(sum(risks) / 2, abs=1e-6)
    assert c.measure_aurc([(1.0, True)] * 3) == 0 and c.measure_aurc([]) is None


def test_a_threshold_is_the_lowest_that_keeps_to_the_errors_that_are_allowed():
    points = [(0.9, True)] * 8 + [(0.6, True), (0.6, False), (0.4, True), (0.3, False), (0.0, False)]
    assert c.find_threshold(points, 0.1) == 0.4 and c.find_threshold(points, 0.0) == 0.9
    assert c.find_threshold([(0.5, False)], 0.1) is None
    assert c.find_threshold([(0.0, False), (0.0, True)], 0.9) is None  # not valid: never let through
    cut = c.cut_at(points, 0.4)
    assert cut == {"coverage": wilson(11, 13), "errors": wilson(1, 11)}
    assert c.find_threshold([(0.5, True), (0.5, False)], 0.5) == 0.5  # as many as are allowed


def test_an_answer_that_is_not_valid_has_no_confidence_and_one_that_nobody_judged_is_no_point():
    row = {"schema_id": "s", "query": "q", "split": "validation", "current_date": "", "raw_output": "", "rank": 0}
    rows = [EvaluationRow(**row, schema_valid=valid, log_p=log_p, semantic_pass=right) for valid, log_p, right in CASES]
    assert c.list_points(rows, c.Calibration(0.0, 1.0)) == [(0.0, False), (0.5, True)]


def test_a_calibration_is_described_on_its_own_rows():
    told = {"schema_id": "s", "query": "q", "split": "validation", "current_date": "", "raw_output": "", "rank": 0}
    known = [(0.9, True)] * 8 + [(0.6, True), (0.6, False)]
    rows = [EvaluationRow(**told, schema_valid=True, log_p=math.log(p), semantic_pass=right) for p, right in known]
    rows.append(EvaluationRow(**told, schema_valid=False, semantic_pass=False))
    found = calibrated.describe_calibration(rows, c.Calibration(0.0, 1.0))
    assert (found["intercept"], found["slope"], found["requests"], found["right"]) == (0.0, 1.0, 11, 9)
    assert found["brier"] == pytest.approx((8 * 0.01 + 0.16 + 0.36) / 11, abs=1e-6)
    cuts = [(each["most_errors"], each["threshold"]) for each in found["thresholds"]]
    assert cuts == [(0.01, 0.9), (0.02, 0.9), (0.05, 0.9), (0.1, 0.6)]
    counts = [[(each[of]["k"], each[of]["n"]) for of in ("coverage", "errors")] for each in found["thresholds"]]
    assert counts == [[(8, 11), (0, 8)]] * 3 + [[(10, 11), (1, 10)]]
    assert calibrated.describe_calibration(rows[-1:], c.Calibration(0.0, 1.0))["thresholds"] == []


CASES = [(False, -0.1, False), (True, math.log(0.5), True), (True, None, True), (True, -0.1, None)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A student whose validation requests it answers right, but for every third one."""
    settings = settings_with_requests(tmp_path_factory.mktemp("confidence"), judge_valid=False, sft_max_steps=60)
    settings = settings.changed(calibration_requests=24)
    where = paths(settings)
    rows = [row for row in read_jsonl(where.dataset) if row["split"] != "validation"]
    like = {**rows[0], "split": "validation"}
    asked = [
        {**like, "query": f"number {300 + i}", "ast_json": ANSWER if i % 3 else '{"n":8}', "is_valid": True}
        for i in range(36)
    ]
    unusable = [{**asked[0], "query": f"number {400 + i}", "is_valid": False} for i in range(12)]
    write_jsonl(where.dataset, [*rows, *asked[:18], *unusable, *asked[18:]])
    adapter = str(where.sft_checkpoint)
    return settings, adapter, calibrated.calibrate_student(settings, "student-sft", adapter)


def test_a_student_is_calibrated_on_validation_requests_alone(made):
    settings, adapter, path = made
    found = read_json(path)
    rows = read_jsonl(path.with_name("calibration_results.jsonl"))
    assert {row["split"] for row in rows} == {"validation"} and len(rows) == found["requests"] == 24
    assert not any(row["query"].startswith("number 4") for row in rows)  # which are not valid
    meta = read_meta(path.with_name("calibration_results.jsonl"))
    assert meta["settings"]["calibration_requests"] == 24 and meta["settings"]["teacher"] is None
    assert [*meta["inputs"]] == ["d_03_dataset.jsonl", "adapter_model.safetensors"]
    assert found["right"] == sum(row["semantic_pass"] for row in rows) == 12
    assert all(row["log_p"] < 0 for row in rows)
    read = calibrated.read_calibration(settings, adapter)
    assert (read.intercept, read.slope) == (found["intercept"], found["slope"])
    mean = sum(read.confidence(row["log_p"]) for row in rows) / 24
    assert mean == pytest.approx(12 / 24, abs=0.05)


def test_answers_are_not_written_twice_and_other_requests_are_refused(made):
    settings, adapter, path = made
    before = path.with_name("calibration_results.jsonl").stat().st_mtime_ns
    said = path.stat().st_mtime_ns
    assert calibrated.calibrate_student(settings, "student-sft", adapter) == path
    assert path.with_name("calibration_results.jsonl").stat().st_mtime_ns == before
    assert path.stat().st_mtime_ns == said
    with pytest.raises(UserError, match="calibration_requests"):
        calibrated.calibrate_student(settings.changed(calibration_requests=22), "student-sft", adapter)


def test_answers_of_the_same_weights_are_taken_but_where_they_are_to_be_written_again(made, capsys):
    settings, adapter, path = made

    def load():
        raise LookupError("loaded")

    again = calibrated.calibrate_student(settings, "student-again", adapter, load)
    assert again.parent.name == "student-again" and again.read_bytes() == path.read_bytes()
    results = [each.with_name("calibration_results.jsonl").read_bytes() for each in (path, again)]
    assert results[0] == results[1] and "answers 24 validation" not in capsys.readouterr().out
    with pytest.raises(LookupError, match="loaded"):
        calibrated.calibrate_student(settings.changed(overwrite=True), "student-again", adapter, load)
    assert "  student-again answers 24 validation requests, to calibrate its confidence" in capsys.readouterr().out


def test_too_few_requests_are_no_calibration(made, capsys):
    settings, adapter, _ = made
    assert calibrated.calibrate_student(settings.changed(calibration_requests=19), "student-few", adapter) is None
    assert calibrated.calibrate_student(settings.changed(max_samples=19), "student-few", adapter) is None
    said = "  19 validation requests: too few to calibrate the confidence of student-few\n"
    assert capsys.readouterr().out == said * 2
    with pytest.raises(UserError, match=r"a base is not calibrated .* evaluate --adapter FOLDER"):
        calibrated.read_calibration(settings.changed(run="another"), adapter="")
    other = settings.changed(run="another", eval_student="base", decoding="constrained", eval_extra=True)
    with pytest.raises(
        UserError, match=r"eval/another-sft/confidence.json is missing\); .* evaluate --adapter .*final"
    ):
        calibrated.read_calibration(other, adapter)


def test_where_too_few_have_a_verdict_no_calibration_is_left(made, monkeypatch, capsys):
    settings, adapter, path = made
    kept = path.read_bytes()
    monkeypatch.setattr(calibrated, "FEWEST", 24)
    assert calibrated.calibrate_student(settings, "student-sft", adapter) == path  # as many as it takes
    read = calibrated.read_rows

    def read_without_one_verdict(path, kind):
        first, *rows = read(path, kind)
        return [replace(first, semantic_pass=None) if kind is EvaluationRow else first, *rows]

    monkeypatch.setattr(calibrated, "read_rows", read_without_one_verdict)
    for _ in range(2):
        assert calibrated.calibrate_student(settings, "student-sft", adapter) is None and not path.exists()
    assert "23 valid answers" in capsys.readouterr().out
    path.write_bytes(kept)


def test_a_calibration_of_other_weights_is_refused(made):
    settings, adapter, path = made
    found = read_json(path)
    write_json(path, {**found, "adapter_digest": "0" * 64})
    with pytest.raises(UserError, match=r"of other weights than .*checkpoint-final; .*checkpoint-final --overwrite"):
        calibrated.read_calibration(settings, adapter)
    for missing in ("slope", "intercept"):
        write_json(path, {name: value for name, value in found.items() if name != missing})
        with pytest.raises(UserError, match="holds no calibration: remove it, and evaluate it"):
            calibrated.read_calibration(settings, adapter)
        write_json(path, {**found, missing: "1"})
        with pytest.raises(UserError, match=f"{missing} must be float"):
            calibrated.read_calibration(settings, adapter)
    write_json(path, found)
