"""Say a run in a few sentences: what the last student reaches, from where, and whether alignment helped."""

from __future__ import annotations

from collections.abc import Sequence

from schema_student.core.jsonl import Row
from schema_student.report.comparisons import SIGNIFICANT
from schema_student.report.rendering import capital, chance, points

BY_HEART = " Its prompts do not show the schema, which it knows by heart."


def write_headline(students: Sequence[Row]) -> str:
    """Write the run in two sentences: what the last student of the flow reaches, and from where."""
    flow = [student for student in students if student["stage"] not in (None, "control")] or students
    if not flow:
        return "Nothing has been evaluated yet: only training logs are shown."
    *earlier, last = [(student, student["summary"]["overall"]["semantic_pass_rate"]) for student in flow]
    student, found = last
    if found["rate"] is None:
        return "The teacher judged no answer, so it is not known how many are right."
    text = (
        f"{capital(student['who'])} answers {found['rate']:.1%} of {found['n']} test requests with valid JSON that "
        f"means what was asked (95% interval {found['low']:.1%} to {found['high']:.1%})."
    )
    before = [f"{rate['rate']:.1%} {_when(other)}" for other, rate in earlier if rate["rate"] is not None]
    text += f" It was {' and '.join(before)}." if before else ""
    return text + (BY_HEART if _answers_by_heart(student) else "")


def _answers_by_heart(student: Row) -> bool:
    return bool(student["summary"].get("schema_rendering") == "none")


def _when(student: Row) -> str:
    return "before any training" if student["key"] == "base" else str(student["label"])


def judge_alignment(line: Row, choice: Row | None, name: str = "DPO") -> Row:
    """Judge whether an alignment helped, by the prompts whose verdict changed: {tone, title, text}.

    `line` is that of all prompts, from count_transitions. Chance is called chance, with what a test so small can show.
    """
    if choice and choice["sft_was_better"]:
        return {
            "tone": "neutral",
            "title": "Alignment did not help: no checkpoint beat SFT on validation",
            "text": f"The SFT student was kept ({choice['why']}).",
        }
    fixed, broken, failures = line["fixed"], line["broken"], line["failures"]
    counts = f"Of the {failures} answers that SFT got wrong {name} fixed {fixed}, and it broke {broken} that were right"
    test = f"exact McNemar test: p {'= ' if line['p'] >= 0.001 else ''}{chance(line['p'])}"
    if fixed == broken == 0:
        return {
            "tone": "neutral",
            "title": "Alignment changed no verdict",
            "text": "Every test answer is as right as it was.",
        }
    change = f"{points(line['difference'])}; {test}"
    if line["p"] >= SIGNIFICANT:
        title = "Alignment made no difference beyond chance"
        return {"tone": "neutral", "title": title, "text": f"{counts}: {change}. {_say_smallest(line)}"}
    helped = fixed > broken
    title = "Alignment helped" if helped else "Alignment did harm"
    gone = f", {line['gone']:.0%} of the failures gone" if helped else ""
    return {"tone": "good" if helped else "bad", "title": title, "text": f"{counts}{gone}: {change}."}


def _say_smallest(line: Row) -> str:
    if line["smallest"] is None:
        return f"Verdicts of too few of the {line['n']} prompts changed to show any difference."
    shown = f"{100 * line['smallest']:.1f} points"
    return f"So many prompts show a difference of {shown} or more, four times of five."
