"""Two adapters, prompt by prompt, before the teacher -> win, tie and loss of the first, with intervals.

Both answer the test prompts (evaluation, which is done already where it was done before); then the teacher compares the
two answers to each prompt twice, with their places swapped. An answer wins where it is better in both places; where the
two verdicts disagree, the place decided and not the answer, and it is a tie. Answers that are the same text are a tie
without a question. Writes duels/A-vs-B/: duel_results.jsonl, duel_summary.json.

    judge_adapters(settings)   # settings.duel.adapters, e.g. [".../student-dpo/checkpoint-final", "base"]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import evaluated, paths
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.core.statistics import sign_test, wilson
from schema_student.evaluation.evaluate import evaluate_student, read_requests
from schema_student.evaluation.rates import prompt_key
from schema_student.student.choice import choose_student
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherFailure

CHUNK = 32  # prompts whose verdicts are written at once
OUTCOMES = ("win", "tie", "loss")
POINTS = {"first": 1, "tie": 0, "second": -1}


def name_duel(settings: AnySettings) -> tuple[AnySettings, list[tuple[str, str]]]:
    """The settings with the run whose prompts are answered, and (name, adapter) of the two; adapter "" is the base.

    Raises UserError where --adapters does not name two different students.
    """
    if len(settings.duel.adapters) != 2:
        raise UserError("give --adapters two adapter folders, or base and one, with a comma between them")
    known = [adapter for adapter in settings.duel.adapters if adapter != "base"]
    run = settings.run.run or resolve_run(settings.changed(adapter=(known or [""])[0]))
    students = []
    for adapter in settings.duel.adapters:
        folder = "" if adapter == "base" else adapter
        own = settings.changed(run="" if folder else run, adapter=folder, eval_student="auto" if folder else "base")
        students.append((evaluated(own)[0], folder))
    if students[0][0] == students[1][0]:
        raise UserError(f"--adapters names {students[0][0]} twice; give two different folders")
    return settings.changed(run=run, adapter=""), students


def duel_dir(settings: AnySettings) -> Path:
    """Where a duel goes."""
    (first, _), (second, _) = name_duel(settings)[1]
    return paths(settings).duels / f"{first}-vs-{second}"


def judge_adapters(settings: AnySettings) -> Path:
    """Evaluate both students where that is not done, and let the teacher compare; returns duel_summary.json."""
    folder = duel_dir(settings)
    settings, students = name_duel(settings)
    files = []
    for name, adapter in students:
        evaluate_student(settings, name, adapter)
        files.append(paths(settings).eval_dir(name) / "evaluation_results.jsonl")
    teacher = resolve_teacher(settings)
    results, names = folder / "duel_results.jsonl", [name for name, _ in students]
    stamp = make_stamp(settings, teacher=teacher.stamp, base=choose_student(settings).base, students=names)
    with open_artifact(results, stamp, files, settings.run.overwrite) as artifact:
        rows = artifact.rows if not artifact.done else read_jsonl(results)
        if not artifact.done:
            meetings = pair_answers(*map(read_jsonl, files))
            accepted = _accepted(settings)
            with open_teacher(settings, teacher) as asked:
                for start in range(len(rows), len(meetings), CHUNK):
                    for row in compare(meetings[start : start + CHUNK], asked.ask_many, accepted):
                        artifact.append(row)
                        rows.append(row)
                    log.info(f"  compared {len(rows)}/{len(meetings)} prompts")
            artifact.finish()
    summary = {"first": names[0], "second": names[1], "judged_by": teacher.display_name, **summarize(rows)}
    write_json(folder / "duel_summary.json", summary)
    print_summary(summary)
    return folder / "duel_summary.json"


def pair_answers(first: Sequence[Row], second: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The two students' rows of evaluation_results of each prompt; raises UserError where they share none."""
    others = {prompt_key(row): row for row in second}
    found = [(row, others[prompt_key(row)]) for row in first if prompt_key(row) in others]
    if not found:
        raise UserError("the two students answered no prompt in common; evaluate both on the same data set")
    return found


def _accepted(settings: AnySettings) -> dict[Any, Row]:
    """The requests of the data set: schema, and what else is accepted, which evaluation_results does not repeat."""
    rows = read_requests(paths(settings).dataset, settings.eval.eval_splits)
    return {prompt_key(row): row for row in rows}


def compare(meetings: Sequence[tuple[Row, Row]], ask_many: Any, requests: dict[Any, Row]) -> list[Row]:
    """A row for each meeting: both answers, the verdicts in both places, and the outcome for the first student."""
    from schema_student.preference.rollouts import question  # brings torch, which a dry run does not need

    asks, rows = [], []
    for ours, theirs in meetings:
        texts = ours["raw_output"], theirs["raw_output"]
        told = {key: ours[key] for key in ("split", "schema_id", "query", "current_date")}
        rows.append({**told, "first": texts[0], "second": texts[1], "same": texts[0] == texts[1]})
        if texts[0] != texts[1]:
            known = _known(requests[prompt_key(ours)], ours)
            asks += [("compare", question(known, *places)) for places in (texts, texts[::-1])]
    verdicts = iter(ask_many(asks))
    return [{**row, **(_same() if row["same"] else decide(next(verdicts), next(verdicts)))} for row in rows]


def _known(request: Row, row: Row) -> Row:
    told = {key: request.get(key) for key in ("query", "current_date", "accepted")}
    return {**told, "schema": json.loads(request["schema_json"]), "target": row["target"]}


def _same() -> Row:
    return {"verdicts": [], "reasons": [], "outcome": "tie", "swayed": False, "error": None}


def decide(straight: Any, swapped: Any) -> Row:
    """The outcome of two verdicts, the second one with the places swapped; null where the teacher failed to judge.

    >>> decide({"better": "first", "reason": ""}, {"better": "second", "reason": ""})["outcome"]
    'win'
    """
    failed = [verdict for verdict in (straight, swapped) if isinstance(verdict, TeacherFailure)]
    if failed:
        return {**_same(), "outcome": None, "error": failed[0].reason}
    points = POINTS[straight["better"]], -POINTS[swapped["better"]]
    agreed = points[0] if points[0] == points[1] else 0
    return {
        "verdicts": [straight["better"], swapped["better"]],
        "reasons": [straight["reason"], swapped["reason"]],
        "outcome": {1: "win", 0: "tie", -1: "loss"}[agreed],
        "swayed": points[0] != points[1],  # the place decided
        "error": None,
    }


def summarize(rows: Sequence[Row]) -> Row:
    """Shares of win, tie and loss with Wilson intervals, over all and by split; p is the sign test's."""
    splits = dict.fromkeys(row["split"] for row in rows)
    by_split = {split: _shares([row for row in rows if row["split"] == split]) for split in splits}
    return {"overall": _shares(rows), "splits": by_split}


def _shares(rows: Sequence[Row]) -> Row:
    known = [row["outcome"] for row in rows if row["outcome"]]
    shares = {outcome: wilson(known.count(outcome), len(known)) for outcome in OUTCOMES}
    counts = {
        "prompts": len(rows),
        "same": sum(row["same"] for row in rows),
        "swayed": sum(row["swayed"] for row in rows),
        "errors": sum(row["outcome"] is None for row in rows),
    }
    return {**counts, **shares, "p": sign_test(known.count("win"), known.count("loss"))}


def print_summary(summary: Row) -> None:
    """The shares, split by split, on the terminal."""
    log.info(f"{summary['first']} against {summary['second']}, judged by {summary['judged_by']}")
    for split, found in {**summary["splits"], "overall": summary["overall"]}.items():
        cells = [
            f"{name} {found[name]['rate']:.1%} ({found[name]['low']:.1%} to {found[name]['high']:.1%})"
            for name in OUTCOMES
            if found[name]["rate"] is not None
        ]
        odd = ", ".join(f"{found[name]} {name}" for name in ("same", "swayed", "errors") if found[name])
        log.info(
            f"{split:<14}{found['prompts']:>6}  {'  '.join(cells)}  p {found['p']:.3f}" + (f"  ({odd})" if odd else "")
        )
