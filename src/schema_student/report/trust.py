"""Say when an answer can be trusted: is confidence calibrated, and what may be answered without help, at what errors?

Thresholds are those of the validation requests (confidence.json); coverage and errors are those of the tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from schema_student.core.jsonl import Row, read_object
from schema_student.core.links import CONTROL
from schema_student.core.paths import Paths
from schema_student.evaluation.confidence import (
    Calibration,
    cut_at,
    list_points,
    measure_aurc,
    measure_brier,
    measure_ece,
    measure_reliability,
    trace_risk,
)
from schema_student.report.charts import Figure, Lines, Series
from schema_student.report.figures import capital

DRAWN = 160  # points of a curve, at most
FEWEST = 5  # answers of a bin of confidence that is drawn
TOLD = 0.05  # share of errors that a sentence is about


def describe_trust(where: Paths, students: Sequence[Row]) -> Row | None:
    """Describe how far answers of the last student can be trusted whose confidence was calibrated; None without one."""
    for student in reversed(students):
        for key in reversed(student["keys"]):
            path = where.eval_dir(f"{where.run_dir.name}-{key}") / "confidence.json"
            if student["stage"] not in (None, CONTROL) and path.is_file():
                return _describe(student, read_object(path, intercept=float, slope=float, thresholds=list))
    return None


def _describe(student: Row, found: Row) -> Row | None:
    if None in (found.get("intercept"), found.get("slope")):
        return None
    calibration = Calibration(found["intercept"], found["slope"])
    points = list_points(student["rows"], calibration)
    if not points or any(row.schema_valid and row.log_p is None for row in student["rows"]):
        return None  # answers of an earlier version, or a part of them
    wrong = [right for _, right in points].count(False)
    return {
        "label": student["label"],
        "who": student["who"],
        "color": student["color"],
        "n": len(points),
        "calibrated_on": found.get("requests"),
        "intercept": calibration.intercept,
        "slope": calibration.slope,
        "errors": wrong / len(points),
        "aurc": measure_aurc(points),
        "least_aurc": measure_aurc([(float(right), right) for _, right in points]),
        "ece": measure_ece(points),
        "brier": measure_brier(points),
        "reliability": measure_reliability(points),
        "risk": trace_risk(points),
        "thresholds": _cut(points, found.get("thresholds") or []),
    }


def _cut(points: Sequence[tuple[float, bool]], thresholds: Sequence[Row]) -> list[Row]:
    """What each threshold of validation lets through on the tests."""
    return [
        {"most_errors": each["most_errors"], "threshold": each["threshold"], **cut_at(points, each["threshold"])}
        for each in thresholds
        if isinstance(each, dict) and all(isinstance(each.get(name), float) for name in ("threshold", "most_errors"))
    ]


def say_trust(found: Row) -> str:
    """Say in a sentence what the student may answer by itself."""
    told = [each for each in found["thresholds"] if each["most_errors"] == TOLD and each["coverage"]["k"]]
    if not told:
        return "No threshold of confidence kept errors on validation requests at 5% or below."
    coverage, errors, bound = told[0]["coverage"], told[0]["errors"], f"{told[0]['threshold']:.3f}"
    return (
        f"{capital(found['who'])} answers {coverage['rate']:.1%} of test requests by itself at {errors['rate']:.1%} "
        f"errors (95% interval {errors['low']:.1%} to {errors['high']:.1%}), where it leaves those of a confidence "
        f"below {bound} to a teacher: ask, serve --defer-to TEACHER --below {bound}. Of all requests it answers "
        f"{found['errors']:.1%} wrong."
    )


def show_trust(found: Row | None) -> Figure | None:
    """Show confidence against what is right, and errors against how much is answered."""
    if found is None:
        return None
    label, color = found["label"], found["color"]
    bins = [(each["mean"], each["right"]) for each in found["reliability"] if each["right"]["n"] >= FEWEST]
    right = [(mean, share["rate"]) for mean, share in bins]
    band = [(mean, share["low"], share["high"]) for mean, share in bins]
    reliability = Lines(
        "Is confidence what it says?",
        "right answers",
        (
            Series("as said", "gray", [(0.0, 0.0), (1.0, 1.0)], faint=True),
            Series(label, color, right, band, dots=True),
        ),
        percent=True,
        x="confidence",
        shares=True,
    )
    curve = _thin([(coverage, risk) for _, coverage, risk in found["risk"]])
    risk = Lines(
        "Errors, the surest answers first",
        "wrong answers of those answered",
        (Series(label, color, curve),),
        percent=True,
        from_zero=True,
        x="share of requests that are answered",
        shares=True,
    )
    caption = f"When to trust an answer of {found['who']}: {found['n']} test requests"
    return Figure("trust", caption, (reliability, risk))


def _thin(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An even choice of a curve's points, with the last."""
    every = math.ceil(len(curve) / DRAWN)
    kept = list(curve[::every])
    return kept if not curve or kept[-1] == curve[-1] else [*kept, curve[-1]]
