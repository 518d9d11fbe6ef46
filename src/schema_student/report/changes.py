"""Say in words what one student changed of another's answers: likelihoods, kinds of errors; extra tests.

Pure functions over rows of evaluation_results.jsonl.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from schema_student.core.jsonl import Row
from schema_student.core.records import EvaluationRow, prompt_key
from schema_student.core.statistics import Z, bootstrap_clusters, paired_change, sign_test, z_of
from schema_student.report.comparisons import find_transitions
from schema_student.report.error_analysis import find_failures

Rows = Sequence[EvaluationRow]
MOST = 4  # kinds of errors that are named, of those that went and of those that came


def compare_readings(before: Rows, after: Rows) -> Row | None:
    """Compute the paired change of P(truth) with its 95% interval, standard error, z and p; None where it is not known.

    `by_schema` bounds the change where whole schemas are drawn.
    """
    later = {prompt_key(row): row.p_truth for row in after}
    pairs = [(row.schema_id, row.p_truth, later.get(prompt_key(row))) for row in before]
    known = [(name, then, now) for name, then, now in pairs if then is not None and now is not None]
    if not known:
        return None
    _, then, now = zip(*known, strict=True)
    change, error = paired_change(now, then)
    z = z_of(change, error)
    return {
        "n": len(known),
        "before": sum(then) / len(known),
        "after": sum(now) / len(known),
        "change": change,
        "error": error,
        "low": change - Z * error,
        "high": change + Z * error,
        "z": z,
        "p": math.erfc(abs(z) / math.sqrt(2)),
        "by_schema": _by_schema(known),
    }


def compare_validity(before: Rows, after: Rows) -> Row:
    """Count the answers that became valid (fixed) and invalid (broken), of `n` prompts, with McNemar's exact p."""
    later = {prompt_key(row): row.schema_valid for row in after}
    pairs = [(row.schema_valid, later[prompt_key(row)]) for row in before if prompt_key(row) in later]
    fixed, broken = pairs.count((False, True)), pairs.count((True, False))
    counts = {"n": len(pairs), "before": sum(then for then, _ in pairs), "after": sum(now for _, now in pairs)}
    return {**counts, "fixed": fixed, "broken": broken, "p": sign_test(fixed, broken)}


def _by_schema(known: Sequence[tuple[str, float, float]]) -> Row:
    gains: dict[str, list[float]] = defaultdict(list)
    for name, then, now in known:
        gains[name].append(now - then)
    low, high = bootstrap_clusters([*map(math.fsum, gains.values())], [*map(len, gains.values())]) or (None, None)
    return {"low": low, "high": high, "schemas": len(gains)}


def count_fault_changes(before: Rows, after: Rows) -> list[tuple[str, int, int]]:
    """Count for each kind of error the answers that had it and those that have it, the greatest change first."""
    then, now = (
        Counter(" ".join(fault).strip() for row in rows for fault in find_failures(row)) for rows in (before, after)
    )
    kinds = sorted({*then, *now}, key=lambda kind: (-abs(now[kind] - then[kind]), kind))
    return [(kind, then[kind], now[kind]) for kind in kinds if then[kind] != now[kind]]


def say_changes(before: Rows, after: Rows) -> list[str]:
    """Say what changed: the likelihood of right answers, which kinds of errors went, and which came."""
    found = []
    if read := compare_readings(before, after):
        found.append(
            f"The likelihood of right answers, P(truth), went from {read['before']:.1%} to {read['after']:.1%}: "
            f"{100 * read['change']:+.2f} points, standard error {100 * read['error']:.2f}, z = {read['z']:.1f}, over "
            f"{read['n']} prompts{_say_by_schema(read['by_schema'])}. "
            "It is the expected share of samples at temperature 1 that are right."
        )
    changes = count_fault_changes(before, after)
    for verb, kept in (("went", [c for c in changes if c[1] > c[2]]), ("came", [c for c in changes if c[1] < c[2]])):
        if kept:
            named = "; ".join(f"{kind} ({then} -> {now})" for kind, then, now in kept[:MOST])
            more = f"; and {len(kept) - MOST} more" if len(kept) > MOST else ""
            found.append(f"Errors that {verb}: {named}{more}.")
    return found


def _say_by_schema(found: Row) -> str:
    """The interval of a change over schemas, where there are several."""
    if found["low"] is None:
        return ""
    return f" (95% interval over {found['schemas']} schemas: {100 * found['low']:+.2f} to {100 * found['high']:+.2f})"


def compare_extra(students: Sequence[Row]) -> list[Row]:
    """Compare the students of extra tests with the one after SFT, else with the first: rates, verdicts, likelihoods."""
    if not students:
        return []
    first = next((student for student in students if student["key"].startswith("sft")), students[0])
    return [_compare_extra(student, first) for student in students]


def _compare_extra(student: Row, first: Row) -> Row:
    found = find_transitions(first["rows"], student["rows"])
    fixed, broken = len(found["fixed"]), len(found["broken"])
    overall = student["summary"]["overall"]
    told = {"label": student["label"], "rate": overall["semantic_pass_rate"], "p_truth": overall["p_truth"]}
    told |= {"fixed": fixed, "broken": broken, "p": sign_test(fixed, broken), "is_first": student is first}
    return {**told, "against": first["label"], "reading": compare_readings(first["rows"], student["rows"])}
