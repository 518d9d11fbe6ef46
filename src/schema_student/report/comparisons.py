"""Compare students on the same prompts: what was fixed and broken, by how much, and whether chance would do it.

Pure functions over rows of evaluation_results.jsonl. A student here is {"key", "label", "who", "rows", "summary"}.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from schema_student.core.jsonl import Row
from schema_student.core.records import EvaluationRow, prompt_key
from schema_student.core.statistics import bootstrap_clusters, holm, paired_difference, sign_test, smallest_difference

Rows = Sequence[EvaluationRow]
SIGNIFICANT = 0.05
KINDS = ("fixed", "broken", "right", "wrong")


def find_transitions(before: Rows, after: Rows) -> Row:
    """Group prompts by what became of them: fixed, broken, right twice, wrong twice; unknown verdicts do not count."""
    later = {prompt_key(row): row for row in after}
    found: dict[str, list[tuple[EvaluationRow, EvaluationRow]]] = {kind: [] for kind in KINDS}
    for row in before:
        other = later.get(prompt_key(row))
        if other is None or row.semantic_pass is None or other.semantic_pass is None:
            continue
        found[_name_change(row.semantic_pass, other.semantic_pass)].append((row, other))
    return found


def _name_change(before: bool, after: bool) -> str:
    if before:
        return "right" if after else "broken"
    return "fixed" if after else "wrong"


def count_transitions(before: Rows, after: Rows, splits: Sequence[str]) -> list[Row]:
    """Count transitions for each split and for all: the share of failures that is gone, difference, intervals, p.

    `p` is the exact McNemar test's; `by_schema` bounds the difference where whole schemas are drawn; `smallest` is the
    difference that so many prompts show four times of five, null where they show none.
    """
    lines = []
    for split in (*splits, None):
        mine = [[row for row in rows if split in (None, row.split)] for rows in (before, after)]
        lines.append({"split": split or "all", **_measure(find_transitions(*mine))})
    return lines


def _measure(found: Row) -> Row:
    counts = {kind: len(found[kind]) for kind in KINDS}
    fixed, broken, n = counts["fixed"], counts["broken"], sum(counts.values())
    failures = fixed + counts["wrong"]
    return {
        **counts,
        "n": n,
        "failures": failures,
        "gone": (fixed - broken) / failures if failures else None,
        "p": sign_test(fixed, broken),
        "difference": paired_difference(fixed, broken, n),
        "by_schema": _by_schema(found),
        "smallest": smallest_difference(n, (fixed + broken) / n) if n else None,
    }


def _by_schema(found: Row) -> Row:
    """The 95% interval of the difference where whole schemas are drawn; null with fewer than two schemas."""
    gains: dict[str, list[int]] = defaultdict(list)
    for kind, gain in (("fixed", 1), ("broken", -1), ("right", 0), ("wrong", 0)):
        for row, _ in found[kind]:
            gains[row.schema_id].append(gain)
    low, high = bootstrap_clusters([*map(sum, gains.values())], [*map(len, gains.values())]) or (None, None)
    return {"low": low, "high": high, "schemas": len(gains)}


def compare_students(students: Sequence[Row], splits: Sequence[str]) -> list[Row]:
    """Compare each student with the one that it was made of, on the same prompts; p values by Holm's correction.

    `corrected` of a comparison is its p over all prompts, corrected for how many comparisons there are.
    """
    found = []
    for i, after in enumerate(students):
        before = find_origin(after, students[:i])
        if before is not None:
            lines = count_transitions(before["rows"], after["rows"], splits)
            found.append({"before": before["label"], "after": after["label"], "of": before["key"], "key": after["key"]})
            found[-1] |= {"lines": lines}
    found += _compare_with_control(students, splits)
    for comparison, p in zip(found, holm([each["lines"][-1]["p"] for each in found]), strict=True):
        comparison["corrected"] = p
    return found


def _compare_with_control(students: Sequence[Row], splits: Sequence[str]) -> list[Row]:
    """The last link of an alignment against its control, SFT that went on for as many steps."""
    control = next((student for student in students if student["key"] == "control"), None)
    links = [each for each in students if each["stage"] not in (None, "base", "sft", "control")]
    if control is None or not links:
        return []
    after = links[-1]
    lines = count_transitions(control["rows"], after["rows"], splits)
    names = {"before": control["label"], "after": after["label"], "of": "control", "key": after["key"]}
    return [{**names, "lines": lines}]


def find_origin(student: Row, earlier: Sequence[Row]) -> Row | None:
    """Find the student that another one was made of: its own without a suffix, else the stage before it, else the base.

    sft-checkpoint-80 and dpo-constrained come of no earlier stage than sft and dpo do, whatever else was evaluated.
    """
    known = {key: other for other in earlier for key in other["keys"]}
    named = [key for key in known if student["key"].startswith(f"{key}-")]
    if named:
        return known[max(named, key=len)]
    before = [other for other in earlier if other["stage"] is not None and student["key"] != "base"]
    if student["stage"] is None or student["key"] == "control":
        return known.get("sft") or next(iter(before), None)
    return before[-1] if before else None
