"""Analyse the errors of several students on the same prompts: what differs, in numbers and examples.

Pure functions over rows of evaluation_results.jsonl. A student here is {"key", "label", "who", "rows", "summary"}.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.records import EvaluationRow, prompt_key
from schema_student.core.splits import spread
from schema_student.core.statistics import wilson
from schema_student.schema.accepted import nearest_target
from schema_student.schema.ranks import RANK_NAMES, RIGHT
from schema_student.schema.structure import general_pointer

Rows = Sequence[EvaluationRow]


# ---------------------------------------------------------------------------------------------------------------------
# Where answers fail


def find_failures(row: EvaluationRow) -> list[tuple[str, str]]:
    """Find the (keyword, path) of each kind of fault of an answer; indices of arrays become *.

    A valid answer that is not what was asked fails where its meaning differs from the nearest accepted one's.
    """
    if row.rank == RIGHT:
        return []
    if not row.parsed:
        return [("cut off" if row.truncated else "not JSON", "")]
    if not row.schema_valid:
        return sorted({(v["keyword"], general_pointer(v["path"])) for v in row.violations})
    if row.target_canonical is None:  # no right answer is known: it is the teacher's word, or nobody's
        return [("not as asked", "")] if row.semantic_pass is False else []
    ours, target = (json.loads(str(text)) for text in (row.student_canonical, row.target_canonical))
    nearest = nearest_target(ours, target, row.accepted)
    paths = {general_pointer(path) for path in differing_paths(ours, nearest)} or {_wording(ours)}
    if "/refusal" in paths:
        paths = {"/refusal"}  # all else differs because of it
    return [("not as asked", path) for path in sorted(paths)]


def _wording(said: Any) -> str:
    """Where an answer that says what was asked is not right: a query's words are no part of its canonical form."""
    return "/refusal/reason" if isinstance(said, dict) and "refusal" in said else "/prompt"


def differing_paths(value: Any, target: Any, path: str = "") -> Iterator[str]:
    """Find the JSON Pointers at which two values differ; of lists of conditions see differing_conditions."""
    if isinstance(value, dict) and isinstance(target, dict):
        for key in sorted({*value, *target}):
            if key not in value or key not in target:
                yield f"{path}/{key}"
            else:
                yield from differing_paths(value[key], target[key], f"{path}/{key}")
    elif isinstance(value, list) and isinstance(target, list) and all(map(_is_condition, [*value, *target])):
        yield from differing_conditions(value, target, path)
    elif isinstance(value, list) and isinstance(target, list) and len(value) == len(target):
        for i, (mine, theirs) in enumerate(zip(value, target, strict=True)):
            yield from differing_paths(mine, theirs, f"{path}/{i}")
    elif json.dumps(value) != json.dumps(target):
        yield path


def _is_condition(value: Any) -> bool:
    return isinstance(value, dict) and "field" in value


def differing_conditions(value: Sequence[Row], target: Sequence[Row], path: str) -> Iterator[str]:
    """Find where conditions differ, matched by their field, wherever they stand."""
    texts = [{json.dumps(condition, sort_keys=True) for condition in side} for side in (target, value)]
    mine = [condition for condition in value if json.dumps(condition, sort_keys=True) not in texts[0]]
    theirs = [condition for condition in target if json.dumps(condition, sort_keys=True) not in texts[1]]
    strangers = 0
    for condition in mine:
        twin = next((other for other in theirs if other["field"] == condition["field"]), None)
        if twin is None:
            strangers += 1
        else:
            theirs.remove(twin)
            yield from differing_paths(condition, twin, f"{path}/0")
    if min(strangers, len(theirs)):
        yield f"{path}/0/field"
    if strangers != len(theirs):
        yield path


def tabulate_failures(students: Sequence[Row], most: int = 15) -> list[Row]:
    """Tabulate the commonest (keyword, path), with the number of answers of each student that fail there."""
    counts = [Counter(fault for row in student["rows"] for fault in find_failures(row)) for student in students]
    total: Counter[tuple[str, str]] = Counter()
    for i, counted in enumerate(counts):
        for fault, n in counted.items():
            # The later students' failures are what a reader can still act on.
            total[fault] += n * (10 if i == len(counts) - 1 else 1)
    ordered = [fault for fault, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:most]]
    return [{"keyword": k, "path": p, "counts": [counted[k, p] for counted in counts]} for k, p in ordered]


def tabulate_groups(students: Sequence[Row], fields: Sequence[str]) -> list[Row]:
    """Tabulate the share that is valid and as asked, for each value of the fields taken together."""

    def group_of(row: EvaluationRow) -> tuple[str, ...]:
        return tuple(str(getattr(row, field) or "") for field in fields)

    lines = []
    for group in sorted({group_of(row) for student in students for row in student["rows"]}):
        shares = []
        for student in students:
            passed = [row.semantic_pass for row in student["rows"] if group_of(row) == group]
            known = [each for each in passed if each is not None]
            shares.append(wilson(sum(known), len(known)))
        lines.append({"group": [part.replace("_", " ") for part in group if part], "shares": shares})
    return lines


def list_weakest(student: Row, most: int = 8) -> list[Row]:
    """List the schemas on which a student fails most often."""
    failed = Counter(row.schema_id for row in student["rows"] if row.rank != RIGHT)
    asked = Counter(row.schema_id for row in student["rows"])
    split = {row.schema_id: row.split for row in student["rows"]}
    ordered = sorted(failed.items(), key=lambda item: (-item[1] / asked[item[0]], -item[1], item[0]))
    return [{"schema_id": s, "failed": n, "asked": asked[s], "split": split[s]} for s, n in ordered[:most]]


# ---------------------------------------------------------------------------------------------------------------------
# Examples


def pick_examples(students: Sequence[Row], each: int = 2) -> list[Row]:
    """Pick a few prompts for each kind of failure, of the last student that fails so, with what every student wrote."""
    examples = []
    for rank in range(RIGHT):
        for student in reversed(students):
            failing = [row for row in student["rows"] if row.rank == rank]
            if failing:
                examples.append(
                    {
                        "kind": RANK_NAMES[rank],
                        "of": student["who"],
                        "count": len(failing),
                        "prompts": [show(row, students) for row in spread(failing, each)],
                    }
                )
                break
    return examples


def show(row: EvaluationRow, students: Sequence[Row]) -> Row:
    """Show one prompt and every student's answer to it."""
    key = prompt_key(row)
    answers = [(s["who"], s["key"], answer) for s in students for answer in s["rows"] if prompt_key(answer) == key]
    shown = ("query", "prompt_text", "current_date", "schema_id", "split")
    answered = [{"who": who, "key": student, **_describe(answer)} for who, student, answer in answers]
    return {
        **{name: getattr(row, name) for name in shown},
        "target": json.dumps(row.target, ensure_ascii=False),
        "answers": answered,
    }


def describe_faults(row: EvaluationRow) -> list[str]:
    """Describe what is wrong with an answer: violations with their paths, or why it does not mean what was asked."""
    found = [f"{v['path'] or '/'}  {v['keyword']}: {v['message']}" for v in row.violations]
    if row.parse_error:
        found.append(f"not JSON: {row.parse_error}")
    if row.truncated:
        found.append("cut off at max_new_tokens")
    if row.schema_valid and row.rank != RIGHT:
        found.append(row.teacher_reason or row.teacher_error or "not what the target means")
    return found


def _describe(row: EvaluationRow) -> Row:
    return {"output": row.raw_output, "rank": row.rank, "verdict": RANK_NAMES[row.rank], "why": describe_faults(row)}
