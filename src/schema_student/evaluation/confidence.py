"""Say how likely an answer is to be right by its log-probability: logistic regression on validation requests (Platt).

P(right) = 1 / (1 + exp(-(a + b log-odds))), log-odds of the answer's own probability p: log(p / (1 - p)). A student
that is calibrated already has a = 0, b = 1. An answer that is not valid is known to be wrong: its confidence is 0.

    calibration = fit_calibration([(log_p, is_right), ...])
    points = [(find_confidence(row, calibration), bool(row.semantic_pass)) for row in rows]
    trace_risk(points), measure_aurc(points), find_threshold(points, most_errors=0.05)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from schema_student.core.jsonl import Row
from schema_student.core.records import EvaluationRow
from schema_student.core.statistics import wilson

NEAR_0 = -1e-4  # nats, as near to 0 as a log p counts: it is rounded there
STEPS, RIDGE = 50, 1e-6  # of Newton's method
BINS = 10  # of confidence, equally wide
Points = Sequence[tuple[float, bool]]  # confidence of an answer, whether it is right


@dataclass(frozen=True)
class Calibration:
    """The regression's coefficients.

    >>> Calibration(0.0, 1.0).confidence(math.log(0.75))
    0.75
    """

    intercept: float
    slope: float

    def confidence(self, log_p: float) -> float:
        """Compute P(right) of a valid answer from its log p (nats)."""
        return round(_sigmoid(self.intercept + self.slope * _log_odds(log_p)), 6)


def _log_odds(log_p: float) -> float:
    log_p = min(log_p, NEAR_0)
    return log_p - math.log(-math.expm1(log_p))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def fit_calibration(answers: Sequence[tuple[float, bool]]) -> Calibration:
    """Fit (log p, whether right) of valid answers, to Platt's targets: finite where nothing, or all, is right."""
    right = sum(is_right for _, is_right in answers)
    targets = (1 / (len(answers) - right + 2), (right + 1) / (right + 2))  # of wrong and of right answers
    pairs = [(_log_odds(log_p), targets[is_right]) for log_p, is_right in answers]
    a, b = math.log((right + 1) / (len(answers) - right + 1)), 0.0
    for _ in range(STEPS):
        step_a, step_b = _find_step(pairs, a, b)
        size, before = 1.0, _loss(pairs, a, b)
        while size > 1e-6 and _loss(pairs, a + size * step_a, b + size * step_b) > before:
            size /= 2
        a, b = a + size * step_a, b + size * step_b
        if abs(step_a) + abs(step_b) < 1e-9:
            break
    return Calibration(round(a, 6), round(b, 6))


def _find_step(pairs: Sequence[tuple[float, float]], a: float, b: float) -> tuple[float, float]:
    """Newton's step of the regression's loss."""
    g0 = g1 = 0.0
    h00, h01, h11 = RIDGE, 0.0, RIDGE
    for x, target in pairs:
        p = _sigmoid(a + b * x)
        weight, error = p * (1 - p), p - target
        g0, g1 = g0 + error, g1 + error * x
        h00, h01, h11 = h00 + weight, h01 + weight * x, h11 + weight * x * x
    det = h00 * h11 - h01 * h01
    return (h01 * g1 - h11 * g0) / det, (h01 * g0 - h00 * g1) / det


def _loss(pairs: Sequence[tuple[float, float]], a: float, b: float) -> float:
    """Cross entropy, in nats, and the ridge."""
    z = [(a + b * x, target) for x, target in pairs]
    whole = math.fsum(max(each, 0) + math.log1p(math.exp(-abs(each))) - target * each for each, target in z)
    return whole + RIDGE * (a * a + b * b) / 2


def find_confidence(row: EvaluationRow, calibration: Calibration) -> float | None:
    """Find the confidence of an evaluated answer; None where its log p is not known."""
    if not row.schema_valid:
        return 0.0
    return None if row.log_p is None else calibration.confidence(row.log_p)


def list_points(rows: Sequence[EvaluationRow], calibration: Calibration) -> list[tuple[float, bool]]:
    """List (confidence, whether right) of the answers of which both are known."""
    found = [(find_confidence(row, calibration), row.semantic_pass) for row in rows]
    return [(confidence, right) for confidence, right in found if confidence is not None and right is not None]


# ---------------------------------------------------------------------------------------------------------------------
# Are they calibrated?


def measure_reliability(points: Points) -> list[Row]:
    """Compare confidence with what is right, bin by bin: {low, high, mean, right}; bins without an answer are left out.

    >>> [(each["low"], each["mean"], each["right"]["k"]) for each in measure_reliability([(0.95, True), (1.0, False)])]
    [(0.9, 0.975, 1)]
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in points:
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, right))
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "mean": round(math.fsum(confidence for confidence, _ in some) / len(some), 6),
            "right": wilson(sum(right for _, right in some), len(some)),
        }
        for i, some in sorted(bins.items())
    ]


def measure_ece(points: Points) -> float | None:
    """Compute the expected calibration error: the mean distance of bins' confidence from what is right of them."""
    found = measure_reliability(points)
    apart = math.fsum(each["right"]["n"] * abs(each["mean"] - each["right"]["rate"]) for each in found)
    return round(apart / len(points), 6) if points else None


def measure_brier(points: Points) -> float | None:
    """Compute the Brier score: the mean squared distance of confidence from 1 where right, from 0 where not."""
    return round(math.fsum((c - right) ** 2 for c, right in points) / len(points), 6) if points else None


# ---------------------------------------------------------------------------------------------------------------------
# What may be answered without help?


def trace_risk(points: Points) -> list[tuple[float, float, float]]:
    """Trace (threshold, coverage, risk), the surest answers first.

    Coverage is the share of answers whose confidence is at least the threshold, risk the share of these that are wrong.

    >>> trace_risk([(0.9, True), (0.5, False), (0.7, True), (0.5, True)])
    [(0.9, 0.25, 0.0), (0.7, 0.5, 0.0), (0.5, 1.0, 0.25)]
    """
    found, covered, wrong = [], 0, 0
    for threshold, size, errors in _group_ties(points):
        covered, wrong = covered + size, wrong + errors
        found.append((threshold, covered / len(points), wrong / covered))
    return found


def _group_ties(points: Points) -> Iterator[tuple[float, int, int]]:
    """(confidence, answers, wrong ones) of those of one confidence, the surest first."""
    ordered = sorted(points, key=lambda point: -point[0])
    for confidence, some in groupby(ordered, key=lambda point: point[0]):
        rights = [right for _, right in some]
        yield confidence, len(rights), rights.count(False)


def measure_aurc(points: Points) -> float | None:
    """Compute the area under the risk-coverage curve: the mean risk over all coverages; ties in an order by chance.

    >>> measure_aurc([(0.9, True), (0.8, False)])
    0.25
    """
    if not points:
        return None
    risks, covered, wrong = [], 0, 0
    for _, size, errors in _group_ties(points):
        risks += [(wrong + errors * j / size) / (covered + j) for j in range(1, size + 1)]
        covered, wrong = covered + size, wrong + errors
    return round(math.fsum(risks) / len(risks), 6)


def find_threshold(points: Points, most_errors: float) -> float | None:
    """Find the lowest confidence from which on at most this share of answers is wrong; None where there is none."""
    fitting = [threshold for threshold, _, risk in trace_risk(points) if risk <= most_errors and threshold > 0]
    return min(fitting, default=None)


def cut_at(points: Points, threshold: float) -> Row:
    """Say what a threshold lets through: coverage and errors, each with its Wilson interval."""
    kept = [right for confidence, right in points if confidence >= threshold]
    return {"coverage": wilson(len(kept), len(points)), "errors": wilson(kept.count(False), len(kept))}
