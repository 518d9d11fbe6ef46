"""Say a run in a few sentences: what the last student reaches, from where, and whether alignment helped."""

from __future__ import annotations

from collections.abc import Sequence

from schema_student.core.jsonl import Row
from schema_student.core.stamps import limit_of
from schema_student.core.statistics import holm
from schema_student.report.comparisons import SIGNIFICANT
from schema_student.report.figures import capital
from schema_student.report.rendering import chance, points

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


def say_parts(steps: Sequence[Row]) -> str:
    """Say which artifacts were made of a part of their rows (--max-samples); "" where all were made of all."""
    limits = {step["name"]: limit for step in steps if (limit := limit_of(step["meta"]))}
    if not limits:
        return ""
    if len(limits) == len(steps) and len({*limits.values()}) == 1:
        return _call_trial(str(max(limits.values())))
    made = "; ".join(
        f"{limit} for {', '.join(name for name, each in limits.items() if each == limit)}"
        for limit in dict.fromkeys(limits.values())
    )
    return _call_trial(made)


def _call_trial(made: str) -> str:
    return f" This is a trial on a part of the rows (--max-samples {made}): its figures are not those of a whole run."


def _answers_by_heart(student: Row) -> bool:
    return bool(student["summary"].get("schema_rendering") == "none")


def _when(student: Row) -> str:
    return "before any training" if student["key"] == "base" else str(student["label"])


VERDICTS = {  # by what P(truth) shows and what greedy answers show: 1 better, -1 worse, 0 no difference beyond chance
    (1, 1): ("good", "Alignment helped"),
    (1, 0): ("good", "Alignment helped: right answers became likelier"),
    (0, 1): ("good", "Alignment helped: more greedy answers are right"),
    (0, 0): ("neutral", "Alignment made no difference beyond chance"),
    (1, -1): ("neutral", "Alignment made right answers likelier, but fewer greedy answers are right"),
    (-1, 1): ("neutral", "Alignment made right answers less likely, but more greedy answers are right"),
    (-1, 0): ("bad", "Alignment did harm: right answers became less likely"),
    (0, -1): ("bad", "Alignment did harm: fewer greedy answers are right"),
    (-1, -1): ("bad", "Alignment did harm"),
}


def judge_alignment(
    line: Row, choice: Row | None, name: str = "DPO", reading: Row | None = None, valid: Row | None = None
) -> Row:
    """Judge whether an alignment helped, on the same prompts before and after: {tone, title, text, reading, ...}.

    `reading` is the paired change of P(truth) (compare_readings), which shows far smaller differences than verdicts of
    greedy answers do; `line` is that of all prompts, from count_transitions. Where both are known their two p values
    are corrected by Holm. `valid` (compare_validity) is what became of valid answers: a loss beyond chance is no help,
    whatever the others say. Chance is called chance, with what a test so small can show.
    """
    known = reading and {name: value for name, value in reading.items() if name != "z"}  # which may be infinite
    numbers = {"reading": known, "greedy": line, "valid": valid}
    if choice and choice["sft_was_better"]:
        title = "Alignment did not help: no checkpoint beat SFT on validation"
        return {"tone": "neutral", "title": title, "text": f"The SFT student was kept ({choice['why']}).", **numbers}
    changed = bool(line["fixed"] or line["broken"] or (valid and (valid["fixed"] or valid["broken"])))
    if not changed and not (reading and reading["change"]):
        title, text = "Alignment changed no verdict", "Every test answer is as right as it was."
        return {"tone": "neutral", "title": title, "text": text, **numbers}
    tone, title, text = _judge_right(line, name, reading)
    if valid and valid["broken"] > valid["fixed"] and valid["p"] < SIGNIFICANT:
        tone, title = ("neutral" if tone == "good" else "bad"), f"{title}, but fewer answers are valid"
    return {"tone": tone, "title": title, "text": f"{text} {_say_valid(valid)}".strip(), **numbers}


def _judge_right(line: Row, name: str, reading: Row | None) -> tuple[str, str, str]:
    """Judge what became of right answers: tone, title, text."""
    if reading is None:
        tone, title = VERDICTS[(0, 0) if line["p"] >= SIGNIFICANT else (_sign(line["fixed"] - line["broken"]),) * 2]
        return tone, title, _say_greedy(line, name, line["p"])
    p_read, p_greedy = holm([reading["p"], line["p"]])
    shown = (
        _sign(reading["change"]) if p_read < SIGNIFICANT else 0,
        _sign(line["fixed"] - line["broken"]) if p_greedy < SIGNIFICANT else 0,
    )
    return *VERDICTS[shown], f"{_say_reading(reading)} {_say_greedy(line, name, p_greedy)}"


def _say_valid(valid: Row | None) -> str:
    """What became of valid answers; "" where that is not known."""
    if not valid or not valid["n"]:
        return ""
    before, after = (valid[when] / valid["n"] for when in ("before", "after"))
    told = f"Valid answers: {before:.1%} before, {after:.1%} after"
    return f"{told} (+{valid['fixed']} -{valid['broken']}; {_say_p(valid['p'])})."


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _say_p(p: float) -> str:
    return f"p {'= ' if p >= 0.001 else ''}{chance(p)}"


def _say_reading(reading: Row) -> str:
    change = points({**reading, "difference": reading["change"]})
    return (
        f"P(truth), the likelihood of right answers to {reading['n']} test requests, went from "
        f"{reading['before']:.1%} to {reading['after']:.1%}: {change}; {_say_p(reading['p'])}."
    )


def _say_greedy(line: Row, name: str, p: float) -> str:
    """What became of greedy answers; `p` decides whether that is more than chance."""
    fixed, broken = line["fixed"], line["broken"]
    if fixed == broken == 0:
        return "No verdict on a greedy answer changed."
    told = (
        f"Of the {line['failures']} greedy answers that SFT got wrong {name} fixed {fixed}, and it broke {broken} that"
    )
    gone = f", {line['gone']:.0%} of the failures gone" if p < SIGNIFICANT and fixed > broken else ""
    told += f" were right{gone}: {points(line['difference'])}; exact McNemar test: {_say_p(line['p'])}."
    return told if p < SIGNIFICANT else f"{told} {_say_smallest(line)}"


def _say_smallest(line: Row) -> str:
    if line["smallest"] is None:
        return f"Verdicts of too few of the {line['n']} prompts changed to show any difference."
    shown = f"{100 * line['smallest']:.1f} points"
    return f"Verdicts on so many prompts show a difference of {shown} or more, four times of five."
