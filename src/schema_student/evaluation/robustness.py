"""Ask a student the test requests again, said otherwise: does it answer them as it answers the plain ones?

After an evaluation NAME; writes student_runs/eval/NAME/: robustness_results.jsonl (rows as of evaluation_results.jsonl,
with perturbed and original_query) and robustness_summary.json, rates beside the plain ones with paired tests.

    measure_robustness(settings, "student-sft", "outputs/student_runs/student/checkpoint-final")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from schema_student.core.artifacts import open_artifact
from schema_student.core.jsonl import Row, update_json
from schema_student.core.log import log
from schema_student.core.paths import evaluated_requests, paths
from schema_student.core.records import DatasetRow, EvaluationRow, prompt_key, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import spread
from schema_student.core.statistics import holm, paired_difference, sign_test, wilson
from schema_student.evaluation.evaluate import Load, answer_requests, find_requests, load_once, stamp_evaluation
from schema_student.evaluation.perturbations import KINDS, echo_otherwise, perturb
from schema_student.student.choice import resolve_student
from schema_student.teacher.choice import resolve_teacher

Perturbed = tuple[str, DatasetRow, DatasetRow]  # kind, the request as it was, and said otherwise


def measure_robustness(given: AnySettings, name: str, adapter: str, load: Load | None = None) -> Path:
    """Let a student answer perturbed test requests; returns robustness_summary.json. Its plain answers must be there.

    Answers that are there already are not written again.
    """
    choice, settings = resolve_student(given)
    results = paths(settings).eval_dir(name) / "robustness_results.jsonl"
    plain = results.with_name("evaluation_results.jsonl")
    requests = spread(find_requests(settings), settings.robustness.robustness)
    asked = list(perturb_all(requests, settings.run.seed))
    teacher = resolve_teacher(settings) if settings.eval.judge_valid else None
    stamp, _ = stamp_evaluation(settings, choice, teacher, "robustness")
    with open_artifact(results, stamp, [evaluated_requests(settings), plain], settings.run.overwrite) as artifact:
        rows = read_rows(artifact.work, EvaluationRow) if artifact.work.exists() else []
        if not artifact.done:
            log.info(f"  {name} answers {len(asked)} requests that are said otherwise")
            done, load = len(rows), load or load_once(settings, adapter)
            answered = answer_requests([request for *_, request in asked], done, settings, load, teacher)
            for (kind, original, _), row in zip(asked[done:], answered, strict=True):
                rows.append(replace(row, perturbed=kind, original_query=original.query))
                artifact.append(rows[-1].as_json())
            artifact.finish()
    summary = results.with_name("robustness_summary.json")
    update_json(summary, summarize_robustness(read_rows(plain, EvaluationRow), rows))
    return summary


def perturb_all(requests: Sequence[DatasetRow], seed: int) -> Iterator[Perturbed]:
    """Perturb each request in each kind, kind by kind; one that a kind does not change is left out of it."""
    for kind in KINDS:
        for request in requests:
            if query := perturb(request.query, kind, request.target, request.language, seed):
                yield kind, request, _say_otherwise(request, query)


def _say_otherwise(request: DatasetRow, query: str) -> DatasetRow:
    """The request with another text, which its answer echoes where it echoed the first."""
    echoed = replace(request, query=query, accepted=echo_otherwise(request.accepted, request.query, query))
    if request.target is None:
        return echoed
    return replace(echoed, ast_json=json.dumps(echo_otherwise(request.target, request.query, query)))


def summarize_robustness(plain: Sequence[EvaluationRow], perturbed: Sequence[EvaluationRow]) -> Row:
    """Compare answers to perturbed requests with those to the plain ones, kind by kind; p by Holm's correction too."""
    before = {prompt_key(row): row for row in plain}
    found: dict[str, Row] = {}
    for kind in dict.fromkeys(row.perturbed for row in perturbed):
        pairs = [(before.get(prompt_key(_original(row))), row) for row in perturbed if row.perturbed == kind]
        known = [(then, now) for then, now in pairs if then is not None]
        found[str(kind)] = _compare(known)
    for measured, p in zip(found.values(), holm([measured["p"] for measured in found.values()]), strict=True):
        measured["corrected"] = p
    return {"kinds": found}


def _original(row: EvaluationRow) -> EvaluationRow:
    return replace(row, query=row.original_query or row.query)


def _compare(pairs: Sequence[tuple[EvaluationRow, EvaluationRow]]) -> Row:
    """The rates of the same requests, plain and perturbed; unknown verdicts do not count."""
    known = [(then.semantic_pass, now.semantic_pass) for then, now in pairs]
    known = [(then, now) for then, now in known if then is not None and now is not None]
    fixed, broken = known.count((False, True)), known.count((True, False))
    return {
        "plain": wilson(sum(bool(then) for then, _ in known), len(known)),
        "perturbed": wilson(sum(bool(now) for _, now in known), len(known)),
        "valid": wilson(sum(now.schema_valid for _, now in pairs), len(pairs)),
        "fixed": fixed,
        "broken": broken,
        "difference": paired_difference(fixed, broken, len(known)),
        "p": sign_test(fixed, broken),
    }


def say_robustness(summary: Row) -> Iterator[str]:
    """Say the rates as lines of a table."""
    yield f"{'said otherwise':<16}{'requests':>9}{'plain':>9}{'otherwise':>11}{'fixed':>7}{'broken':>8}{'p (Holm)':>10}"
    for kind, found in summary["kinds"].items():
        rates = [f"{found[side]['rate'] or 0:.1%}" for side in ("plain", "perturbed")]
        counts = f"{found['fixed']:>7}{found['broken']:>8}{found['corrected']:>10.3f}"
        yield f"{kind:<16}{found['plain']['n']:>9}{rates[0]:>9}{rates[1]:>11}{counts}"
