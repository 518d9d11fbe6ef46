"""Say a run in a few sentences: what the last student reaches, from where, and whether alignment helped."""

from __future__ import annotations

from collections.abc import Sequence

from schema_student.core.jsonl import Row
from schema_student.report.error_analysis import (
    SIGNIFICANT,
)
from schema_student.report.rendering import capital, chance

BY_HEART = " Its prompts do not show the schema, which it knows by heart."


def write_headline(students: Sequence[Row]) -> Row:
    """Write the run in two sentences: what the last student reaches, and from where."""
    if not students:
        return {"text": "Nothing has been evaluated yet: only training logs are shown.", "alignment": None}
    *earlier, last = [(student, student["summary"]["overall"]["semantic_pass_rate"]) for student in students]
    student, found = last
    if found["rate"] is None:
        return {"text": "The teacher judged no answer, so it is not known how many are right.", "alignment": None}
    text = (
        f"{capital(student['who'])} answers {found['rate']:.1%} of {found['n']} test requests with valid JSON that "
        f"means what was asked (95% interval {found['low']:.1%} to {found['high']:.1%})."
    )
    before = [f"{rate['rate']:.1%} {_when(other)}" for other, rate in earlier if rate["rate"] is not None]
    text += f" It was {' and '.join(before)}." if before else ""
    return {"text": text + (BY_HEART if _answers_by_heart(student) else ""), "alignment": None}


def _answers_by_heart(student: Row) -> bool:
    return bool(student["summary"].get("schema_rendering") == "none")


def _when(student: Row) -> str:
    return "before any training" if student["key"] == "base" else student["label"]


def judge_alignment(line: Row, choice: Row | None) -> Row:
    """Judge whether DPO helped, by the prompts whose verdict changed: {tone, title, text}. Chance is called chance."""
    if choice and choice["sft_was_better"]:
        return {
            "tone": "neutral",
            "title": "Alignment did not help: no checkpoint beat SFT on validation",
            "text": f"The SFT student was kept ({choice['why']}).",
        }
    fixed, broken, failures = line["fixed"], line["broken"], line["failures"]
    counts = f"Of the {failures} answers that SFT got wrong DPO fixed {fixed}, and it broke {broken} that were right"
    test = f"(exact sign test: p {'= ' if line['p'] >= 0.001 else ''}{chance(line['p'])})"
    if fixed == broken == 0:
        return {
            "tone": "neutral",
            "title": "Alignment changed no verdict",
            "text": "Every test answer is as right as it was.",
        }
    if line["p"] >= SIGNIFICANT:
        title = "Alignment made no difference beyond chance"
        return {"tone": "neutral", "title": title, "text": f"{counts}: no more than chance would do {test}."}
    helped = fixed > broken
    title = "Alignment helped" if helped else "Alignment did harm"
    gone = f", {line['gone']:.0%} of the failures gone" if helped else ""
    return {"tone": "good" if helped else "bad", "title": title, "text": f"{counts}{gone} {test}."}
