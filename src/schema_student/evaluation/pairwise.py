"""Have the teacher compare two adapters' answers, prompt by prompt -> win, tie and loss of the first, with intervals.

Both answer the test prompts (evaluation, which is done already where it was done before); then the teacher compares the
two answers to each prompt twice, with their places swapped. An answer wins where it is better in both places; where the
two verdicts disagree, the teacher followed the place (position bias) and not the answer, and it is a tie. Answers that
are the same text are a tie without a question. Writes duels/A-vs-B/: duel_results.jsonl, duel_summary.json.

    judge_adapters(settings)   # settings.pairwise.adapters, e.g. [".../student-dpo/checkpoint-final", "base"]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import Artifact, open_artifact
from schema_student.core.errors import UserError
from schema_student.core.files import refuse_link
from schema_student.core.jsonl import Row, read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import evaluated, paths
from schema_student.core.records import DatasetRow, EvaluationRow, prompt_key, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.core.statistics import sign_test, wilson
from schema_student.evaluation.evaluate import evaluate_student, read_requests
from schema_student.preference.scoring import question
from schema_student.student.choice import base_digest, choose_student
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherFailure

DECIDING = ()  # groups of settings: none but what evaluation reads; its rows are inputs
CHUNK = 32  # prompts whose verdicts are written at once
OUTCOMES = ("win", "tie", "loss")
AnswerPair = tuple[EvaluationRow, EvaluationRow]
POINTS = {"first": 1, "tie": 0, "second": -1}


def name_students(settings: AnySettings) -> tuple[AnySettings, list[tuple[str, str]]]:
    """Name the two students (name, adapter), adapter "" for the base; and set the run whose prompts they answer.

    Raises UserError where --adapters does not name two different students.
    """
    if len(settings.pairwise.adapters) != 2:
        raise UserError("give --adapters two adapter folders, or base and one, with a comma between them")
    settings = settings.changed(decoding="free")  # of an evaluation alone, which a shared file may hold
    known = [adapter for adapter in settings.pairwise.adapters if adapter != "base"]
    run = settings.run.run or resolve_run(settings.changed(adapter=(known or [""])[0]))
    students = []
    for adapter in settings.pairwise.adapters:
        folder = "" if adapter == "base" else adapter
        own = settings.changed(run="" if folder else run, adapter=folder, eval_student="auto" if folder else "base")
        students.append((evaluated(own)[0], folder))
    if students[0][0] == students[1][0]:
        raise UserError(f"--adapters names {students[0][0]} twice; give two different folders")
    return settings.changed(run=run, adapter=""), students


def pairwise_dir(settings: AnySettings) -> Path:
    """Locate the folder of the comparison of two students."""
    (first, _), (second, _) = name_students(settings)[1]
    folder = paths(settings).pairwise / f"{first}-vs-{second}"
    refuse_link(folder)
    return folder


def judge_adapters(settings: AnySettings) -> Path:
    """Evaluate both students where that is not done, and let the teacher compare; returns duel_summary.json."""
    folder = pairwise_dir(settings)
    settings, students = name_students(settings)
    names, files = [name for name, _ in students], []
    for name, adapter in students:
        files.append(evaluate_student(settings, name, adapter).with_name("evaluation_results.jsonl"))
    teacher = resolve_teacher(settings)
    results, summary = folder / "duel_results.jsonl", folder / "duel_summary.json"
    stamp = make_stamp(
        settings,
        *DECIDING,
        teacher=teacher.stamp,
        students=names,
        base_digest=base_digest(choose_student(settings).base),
    )
    with open_artifact(results, stamp, files, settings.run.overwrite) as artifact:
        if not artifact.done:
            first, second = (read_rows(file, EvaluationRow) for file in files)
            _compare_all(artifact, pair_answers(first, second), settings, teacher)
            artifact.finish()
    found = {"first": names[0], "second": names[1], "judged_by": teacher.display_name}
    found |= summarize(read_jsonl(results))
    write_json(summary, found)
    print_summary(found)
    return summary


def _compare_all(
    artifact: Artifact, pairs: Sequence[AnswerPair], settings: AnySettings, teacher: TeacherChoice
) -> None:
    """Write a row for each pair of answers after those that are there."""
    rows = read_requests(paths(settings).dataset, settings.eval.eval_splits)
    requests = {prompt_key(row): row for row in rows}  # with the schema, which evaluation_results does not repeat
    with open_teacher(settings, teacher) as asked:
        for start in range(len(artifact.rows), len(pairs), CHUNK):
            some = pairs[start : start + CHUNK]
            for row in compare(some, asked.ask_many, requests):
                artifact.append(row)
            log.info(f"  compared {start + len(some)}/{len(pairs)} prompts")


def pair_answers(first: Sequence[EvaluationRow], second: Sequence[EvaluationRow]) -> list[AnswerPair]:
    """Pair the two students' answers to each prompt; raises UserError where they share none."""
    others = {prompt_key(row): row for row in second}
    found = [(row, others[prompt_key(row)]) for row in first if prompt_key(row) in others]
    if not found:
        raise UserError("the two students answered no prompt in common; evaluate both on the same data set")
    return found


def compare(pairs: Sequence[AnswerPair], ask_many: Any, requests: dict[Any, DatasetRow]) -> list[Row]:
    """Compare each pair: a row with both answers, both verdicts, and the outcome for the first student."""
    asks, rows = [], []
    for ours, theirs in pairs:
        texts = ours.raw_output, theirs.raw_output
        told = {key: getattr(ours, key) for key in ("split", "schema_id", "query", "current_date")}
        rows.append({**told, "first": texts[0], "second": texts[1], "same": texts[0] == texts[1]})
        if texts[0] != texts[1]:
            known = _known(requests[prompt_key(ours)], ours)
            asks += [("compare", question(known, *places)) for places in (texts, texts[::-1])]
    verdicts = iter(ask_many(asks))
    return [{**row, **(_tie() if row["same"] else decide(next(verdicts), next(verdicts)))} for row in rows]


def _known(request: DatasetRow, row: EvaluationRow) -> Row:
    told = {key: getattr(request, key) for key in ("query", "current_date", "accepted")}
    return {**told, "schema": request.schema, "target": row.target}


def _tie() -> Row:
    """The verdict on answers of the same text, which the teacher is not asked about."""
    return {"verdicts": [], "reasons": [], "outcome": "tie", "swayed": False, "error": None}


def decide(straight: Any, swapped: Any) -> Row:
    """Decide the outcome of two verdicts, the second with the places swapped; null where the teacher failed to judge.

    >>> decide({"better": "first", "reason": ""}, {"better": "second", "reason": ""})["outcome"]
    'win'
    """
    failed = [verdict for verdict in (straight, swapped) if isinstance(verdict, TeacherFailure)]
    if failed:
        return {**_tie(), "outcome": None, "error": failed[0].reason}
    points = POINTS[straight["better"]], -POINTS[swapped["better"]]
    agreed = points[0] if points[0] == points[1] else 0
    return {
        "verdicts": [straight["better"], swapped["better"]],
        "reasons": [straight["reason"], swapped["reason"]],
        "outcome": {1: "win", 0: "tie", -1: "loss"}[agreed],
        "swayed": points[0] != points[1],  # position bias: the place decided
        "error": None,
    }


def summarize(rows: Sequence[Row]) -> Row:
    """Compute the shares of win, tie and loss with Wilson intervals, over all and by split; p is the sign test's."""
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
    """Log the shares, split by split."""
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
