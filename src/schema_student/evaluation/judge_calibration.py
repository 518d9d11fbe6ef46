"""Hold the teacher's verdicts against known truth: agreement, Cohen's kappa, false accepts and false rejects.

The truth is known of requests whose answers a person gave, or the embedded teacher that asked them; what the judge
itself wrote is no truth about it. Judged are, of each such request: the known answer, another one that is accepted, the
known one with a value changed, and the valid answers of the run's students, as `grade` finds them. The judge is asked
as in an evaluation, with the known answer as its reference; a language model also without, which is what verdicts on
requests without an answer rest on. Writes judge/RUN-by-TEACHER/: judge_results.jsonl, judge_summary.json.

    calibrate(settings)
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact, read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.markdown import shorten
from schema_student.core.names import clean_name, file_name, resolve_run
from schema_student.core.paths import evaluated_requests, paths
from schema_student.core.records import DatasetRow, EvaluationRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.core.statistics import cohen_kappa, wilson
from schema_student.evaluation.eval_data import stamp_eval_data
from schema_student.evaluation.evaluate import find_requests
from schema_student.evaluation.verdicts import judge_question
from schema_student.schema.answers import list_right_answers
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.grading import grade, grade_value
from schema_student.schema.mutations import mutate
from schema_student.schema.parsing import parse_strict
from schema_student.schema.rendering import completion_text
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.client import Teacher, open_teacher
from schema_student.teacher.embedded.identity import MODEL as EMBEDDED
from schema_student.teacher.faults import TeacherFailure

DECIDING = ("answers",)  # groups of settings, beside which requests are taken
CHUNK = 32  # verdicts that are asked for at once
LISTED = 50  # false verdicts of each kind that the summary lists
SHOWN = 3  # and that are logged
KNOWN, ACCEPTED, CHANGED, OF_STUDENTS = "the known answer", "another accepted one", "a value changed", "of a student"
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Case:
    """An answer whose truth is known, and where it comes from."""

    request: DatasetRow
    source: str
    answer: Any
    right: bool


def calibration_dir(settings: AnySettings) -> Path:
    """Locate the folder of a judge's calibration."""
    own = f"-on-{file_name(settings.evaluated.eval_data)}" if settings.evaluated.eval_data else ""
    judge = clean_name(resolve_teacher(settings).model)
    return paths(settings).judge / f"{resolve_run(settings)}{own}-by-{judge}"


def calibrate(settings: AnySettings) -> Path:
    """Have the teacher judge answers whose truth is known; returns judge_summary.json.

    Raises UserError where no request has an answer that is known otherwise than from this teacher.
    """
    choice, folder = resolve_teacher(settings), calibration_dir(settings)
    results, summary = folder / "judge_results.jsonl", folder / "judge_summary.json"
    evaluations = find_evaluations(settings)
    stamp = make_stamp(settings, *DECIDING, teacher=choice.stamp)
    stamp["settings"] |= stamp_eval_data(settings)
    stamp["settings"] |= {name: settings.value(name) for name in ("eval_splits", "eval_limit")}
    requests = find_requests(settings)
    known = [row for row in requests if is_known(row, choice)]
    with open_artifact(
        results, stamp, [evaluated_requests(settings), *evaluations], settings.run.overwrite
    ) as artifact:
        if not artifact.done:
            cases = list_cases(known, [row for path in evaluations for row in read_rows(path, EvaluationRow)])
            asked = [(case, blind) for blind in _manners(choice) for case in cases]
            if not asked:
                raise UserError(_no_cases(evaluated_requests(settings), choice))
            with open_teacher(settings, choice) as teacher:
                for begin in range(len(artifact.rows), len(asked), CHUNK):
                    for row in judge_cases(asked[begin : begin + CHUNK], teacher):
                        artifact.append(row)
                    log.info(f"  judged {min(begin + CHUNK, len(asked))}/{len(asked)} answers")
            artifact.finish()
    found = {"judged_by": choice.display_name, "requests": len(known), "left_out": len(requests) - len(known)}
    found |= summarize(read_jsonl(results))
    write_json(summary, found)
    for line in describe(found):
        log.info(line)
    return summary


def _manners(choice: TeacherChoice) -> tuple[bool, ...]:
    """Whether answers are judged without a reference: the embedded teacher cannot."""
    return (False,) if choice.embedded else (False, True)


def _no_cases(path: Path, choice: TeacherChoice) -> str:
    return (
        f"{path} has no request whose answer is known otherwise than from {choice.display_name}: give --eval-data with "
        "answers of your own"
    )


def is_known(row: DatasetRow, judge: TeacherChoice) -> bool:
    """Return whether a request's answer is known: from a person, the embedded teacher, or not from the judge."""
    return row.ast_json is not None and (row.teacher_model == EMBEDDED or row.teacher_model != judge.model)


def find_evaluations(settings: AnySettings) -> list[Path]:
    """Find the finished evaluations of the run, whose students' answers are judged as well."""
    found = sorted(paths(settings).evals.glob(f"{resolve_run(settings)}-*/evaluation_results.jsonl"))
    return [path for path in found if read_meta(path) is not None]


# ---------------------------------------------------------------------------------------------------------------------
# Answers whose truth is known


def list_cases(requests: Sequence[DatasetRow], answered: Sequence[EvaluationRow]) -> list[Case]:
    """List the answers to judge, request by request; an answer of a meaning that stands there already is left out."""
    by_request: dict[Key, list[EvaluationRow]] = {}
    for row in answered:
        by_request.setdefault((row.schema_id, row.current_date, row.query), []).append(row)
    found = []
    for request in requests:
        schema = compile_schema(request.schema, request.schema_id)
        meanings: set[str] = set()
        rows = by_request.get((request.schema_id, request.current_date, request.query), [])
        for case in _list_answers(request, schema, rows):
            meaning = canonical(case.answer, schema.schema)
            if meaning not in meanings:
                meanings.add(meaning)
                found.append(case)
    return found


def _list_answers(request: DatasetRow, schema: CompiledSchema, rows: Sequence[EvaluationRow]) -> Iterator[Case]:
    yield Case(request, KNOWN, request.target, True)
    for text in list_right_answers(schema, request.target, request.accepted, most=2).texts[1:]:
        yield Case(request, ACCEPTED, parse_strict(text)[0], True)
    for text, kind in mutate(request.target, schema, random.Random(f"{request.schema_id} {request.query}")):
        value = parse_strict(text)[0]
        if kind == "other_value" and not grade_value(value, schema, request.target, request.accepted).right:
            yield Case(request, CHANGED, value, False)
    for row in rows:
        graded = grade(row.raw_output, schema, request.target, request.accepted)
        if row.schema_valid and graded.verdict.schema_valid:
            yield Case(request, OF_STUDENTS, graded.verdict.value, graded.right)


def judge_cases(cases: Sequence[tuple[Case, bool]], teacher: Teacher) -> list[Row]:
    """Judge answers, each with its request's known answer as reference or blind -> rows of judge_results."""
    verdicts = teacher.ask_many([("judge", judge_question(case.request, case.answer, blind)) for case, blind in cases])
    return [_write_row(case, blind, found) for (case, blind), found in zip(cases, verdicts, strict=True)]


def _write_row(case: Case, blind: bool, found: Any) -> Row:
    failed = isinstance(found, TeacherFailure)
    told = {key: getattr(case.request, key) for key in ("schema_id", "query", "current_date", "split")}
    return {
        **told,
        "source": case.source,
        "blind": blind,
        "answer": case.answer,
        "known_answer": case.request.target,
        "right": case.right,
        "verdict": None if failed else found["is_good"],
        "reason": None if failed else found["reason"],
        "error": found.reason if failed else None,
    }


# ---------------------------------------------------------------------------------------------------------------------
# What the verdicts come to


def summarize(rows: Sequence[Row]) -> Row:
    """Compute judge_summary.json from the rows: with the reference and without, each over all and by source."""
    found: Row = {}
    for blind, name in ((False, "with_reference"), (True, "without_reference")):
        mine = [row for row in rows if row["blind"] == blind]
        sources = dict.fromkeys(row["source"] for row in mine)
        by_source = {source: measure([row for row in mine if row["source"] == source]) for source in sources}
        found[name] = {**measure(mine), "by_source": by_source} if mine else None
    wrong = [row for row in rows if row["verdict"] is not None and row["verdict"] != row["right"]]
    lists = {
        "false_accepts": [row for row in wrong if row["verdict"]],
        "false_rejects": [r for r in wrong if r["right"]],
    }
    return found | {name: some[:LISTED] for name, some in lists.items()}


def measure(rows: Sequence[Row]) -> Row:
    """Compute agreement, kappa, and the rates of false verdicts; answers that the judge failed on count in none."""
    pairs = [(row["right"], row["verdict"]) for row in rows if row["verdict"] is not None]
    right, accepted_wrong = pairs.count((True, True)), pairs.count((False, True))
    rejected_right, wrong = pairs.count((True, False)), pairs.count((False, False))
    return {
        "answers": len(rows),
        "errors": len(rows) - len(pairs),
        "agreement": wilson(right + wrong, len(pairs)),
        "kappa": cohen_kappa(right, rejected_right, accepted_wrong, wrong),
        "false_accept_rate": wilson(accepted_wrong, accepted_wrong + wrong),
        "false_reject_rate": wilson(rejected_right, right + rejected_right),
    }


def describe(summary: Row) -> list[str]:
    """Say what the verdicts come to, and the first false ones."""
    lines = [f"{summary['judged_by']} as a judge, on {summary['requests']} requests with a known answer"]
    if summary["left_out"]:
        lines.append(f"  {summary['left_out']} requests are left out: their answers are the judge's own, or not known")
    for name in ("with_reference", "without_reference"):
        if found := summary[name]:
            rates = {key: found[key]["rate"] for key in ("agreement", "false_accept_rate", "false_reject_rate")}
            said = [f"{key.replace('_', ' ')} {rate:.1%}" for key, rate in rates.items() if rate is not None]
            said.append("kappa -" if found["kappa"] is None else f"kappa {found['kappa']:.2f}")
            failed = f"; {found['errors']} failed" if found["errors"] else ""
            lines.append(f"  {name.replace('_', ' ')}: {found['answers']} answers, {', '.join(said)}{failed}")
    for name in ("false_accepts", "false_rejects"):
        for row in summary[name][:SHOWN]:
            blind = ", without a reference" if row["blind"] else ""
            answer = shorten(completion_text(row["answer"]), 120)
            lines.append(f"  {name[:-1].replace('_', ' ')}{blind}: {shorten(row['query'], 80)!r} -> {answer}")
    return lines
