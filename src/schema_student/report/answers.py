"""Gather all answers for the table of the page: a line a prompt, with what every student wrote to it.

What is said twice is written once: schemas by their id, an answer that equals another student's by a reference to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.markdown import shorten
from schema_student.core.places import hide_places
from schema_student.core.records import DatasetRow, EvaluationRow, prompt_key
from schema_student.report.comparisons import find_transitions
from schema_student.report.error_analysis import describe_faults, find_failures
from schema_student.schema.ranks import RANK_NAMES

LONGEST = 4000  # characters of one text that the page holds
SURE = 90  # percent of a token from which on it is not named


def gather_answers(students: Sequence[Row], dataset: Sequence[DatasetRow], compared: tuple[Row, Row] | None) -> Row:
    """Gather the students, the schemas, and a line a prompt in the order of the evaluation.

    A line: q request, s schema_id, p split, d date, k kind, l language, t target, x what else is accepted, c fixed or
    broken between the two students compared, a an answer a student: o its text or the place of the student that wrote
    the same, r rank, f faults, w why, g log p, u least sure tokens; null where a student was not asked.
    """
    asked: dict[Any, EvaluationRow] = {}
    for student in students:
        for row in student["rows"]:
            asked.setdefault(prompt_key(row), row)
    answers = [{prompt_key(row): row for row in student["rows"]} for student in students]
    changes = _name_changes(compared)
    lines = [
        _write_line(row, [answered.get(key) for answered in answers], changes.get(key, ""))
        for key, row in asked.items()
    ]
    return {
        "students": [{name: student[name] for name in ("key", "label", "color")} for student in students],
        "ranks": RANK_NAMES,
        "schemas": _find_schemas([*asked.values()], dataset),
        "lines": lines,
    }


def _name_changes(compared: tuple[Row, Row] | None) -> dict[Any, str]:
    if compared is None:
        return {}
    found = find_transitions(compared[0]["rows"], compared[1]["rows"])
    return {prompt_key(row): kind for kind in ("fixed", "broken") for row, _ in found[kind]}


def _write_line(row: EvaluationRow, answers: Sequence[EvaluationRow | None], change: str) -> Row:
    line: Row = {"q": _cut(row.query), "s": row.schema_id, "p": row.split, "d": row.current_date}
    optional = {"k": row.kind, "l": row.language, "c": change, "x": row.accepted}
    line |= {name: value for name, value in optional.items() if value}
    if row.target is not None:
        line["t"] = _cut(_compact(row.target))
    written: list[str] = []
    line["a"] = [_write_answer(answer, written) for answer in answers]
    return line


def _write_answer(row: EvaluationRow | None, written: list[str]) -> Row | None:
    """An answer of the line; `written` are the texts of the students before."""
    text = None if row is None else _cut(row.raw_output)
    place = written.index(text) if text in written else None
    written.append("\0" if text is None else text)
    if row is None:
        return None
    answer: Row = {"o": text if place is None else place, "r": row.rank}
    faults = [f"{keyword} {path}".strip() for keyword, path in find_failures(row)]
    optional = {"f": faults, "w": [_cut(why) for why in describe_faults(row)], "g": row.log_p, "u": _list_unsure(row)}
    if row.semantic_pass is None:
        optional["n"] = 1  # not known whether it is right
    return answer | {name: value for name, value in optional.items() if value}


def _list_unsure(row: EvaluationRow) -> list[list[Any]]:
    """The tokens that a student was not sure of: place, token, percent, and what was the likeliest instead of it."""
    found = []
    for each in row.least_sure:
        if _percent(each.get("probability")) < SURE:
            token = [each.get("place"), _cut(str(each.get("token"))), _percent(each.get("probability"))]
            other = [_cut(str(each["other"])), _percent(each.get("other_probability"))] if each.get("other") else []
            found.append([*token, *other])
    return found


def _percent(share: Any) -> int:
    return round(100 * share) if isinstance(share, (int, float)) else 0


def _find_schemas(rows: Sequence[EvaluationRow], dataset: Sequence[DatasetRow]) -> dict[str, str]:
    """The JSON Schema of each id, else the part of the prompts that its requests share: what the student read of it."""
    known = {row.schema_id: row.schema_json for row in dataset}
    prompts: dict[str, list[str]] = {}
    for row in rows:
        prompts.setdefault(row.schema_id, []).append(row.prompt_text)
    return {
        name: _cut(known[name] if name in known else texts[0].rpartition("\nDate:")[0])
        for name, texts in prompts.items()
    }


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str) -> str:
    return shorten(hide_places(text), LONGEST)
