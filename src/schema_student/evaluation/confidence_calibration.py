"""Calibrate the confidence of a trained student: it answers validation requests, which no test of it has.

Reads the validation split of d_03; writes student_runs/eval/NAME/: calibration_results.jsonl (rows as of
evaluation_results.jsonl) and confidence.json, by which the report, ask and serve say how far an answer can be trusted.

    calibrate_student(settings, "student-sft", "outputs/student_runs/student/checkpoint-final")
    read_calibration(settings, adapter)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_object, update_json
from schema_student.core.log import log
from schema_student.core.paths import evaluated, paths
from schema_student.core.records import DatasetRow, EvaluationRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import VALIDATION, smaller_limit, spread
from schema_student.core.stamps import digest
from schema_student.evaluation.confidence import (
    Calibration,
    cut_at,
    find_threshold,
    fit_calibration,
    list_points,
    measure_brier,
)
from schema_student.evaluation.evaluate import (
    Load,
    answer_requests,
    fill_artifact,
    find_same_answers,
    load_once,
    stamp_evaluation,
)
from schema_student.student.choice import resolve_student
from schema_student.teacher.choice import resolve_teacher

FEWEST = 20  # valid answers with a verdict, below which nothing is calibrated
MOST_ERRORS = (0.01, 0.02, 0.05, 0.1)  # for which a threshold is found
WEIGHTS = "adapter_model.safetensors"


def calibrate_student(given: AnySettings, name: str, adapter: str, load: Load | None = None) -> Path | None:
    """Let a student answer validation requests, and fit its confidence; returns confidence.json, None without enough.

    Answers that are there already are not written again.
    """
    choice, settings = resolve_student(given)
    where = paths(settings)
    requests = _draw_requests(
        where.dataset, smaller_limit(settings.confidence.calibration_requests, settings.part.max_samples)
    )
    if len(requests) < FEWEST:
        log.info(f"  {len(requests)} validation requests: too few to calibrate the confidence of {name}")
        return None
    teacher = resolve_teacher(settings) if settings.eval.judge_valid else None
    stamp, _ = stamp_evaluation(settings, choice, teacher, "confidence")
    results = where.eval_dir(name) / "calibration_results.jsonl"
    inputs = [where.dataset, Path(adapter) / WEIGHTS]
    with open_artifact(results, stamp, inputs, settings.run.overwrite) as artifact:
        rows = read_rows(artifact.work, EvaluationRow) if artifact.work.exists() else []
        if not artifact.done:
            same = None if settings.run.overwrite else find_same_answers(results, artifact.stamp)
            if not same:
                log.info(f"  {name} answers {len(requests)} validation requests, to calibrate its confidence")
            fill_artifact(
                artifact,
                rows,
                same,
                lambda done: answer_requests(requests, done, settings, load or load_once(settings, adapter), teacher),
            )
            artifact.finish()
    return _write(results.with_name("confidence.json"), rows, Path(adapter) / WEIGHTS)


def _draw_requests(dataset: Path, count: int) -> list[DatasetRow]:
    rows = [row for row in read_rows(dataset, DatasetRow) if row.is_valid and row.split == VALIDATION]
    return spread(rows, count)


def _write(path: Path, rows: Sequence[EvaluationRow], weights: Path) -> Path | None:
    """Fit the answers and write what is known of them; None, and no file, where they are too few."""
    known = [
        (row.log_p, row.semantic_pass)
        for row in rows
        if row.schema_valid and row.log_p is not None and row.semantic_pass is not None
    ]
    if len(known) < FEWEST:
        log.info(f"  {len(known)} valid answers to validation requests: too few to calibrate confidence")
        path.unlink(missing_ok=True)
        return None
    update_json(path, {**describe_calibration(rows, fit_calibration(known)), "adapter_digest": digest(weights)})
    return path


def describe_calibration(rows: Sequence[EvaluationRow], calibration: Calibration) -> Row:
    """Describe a calibration on its own rows: coefficients, Brier score, and the threshold for each share of errors."""
    points = list_points(rows, calibration)
    thresholds = [(most, find_threshold(points, most)) for most in MOST_ERRORS]
    return {
        "intercept": calibration.intercept,
        "slope": calibration.slope,
        "requests": len(points),
        "right": sum(right for _, right in points),
        "brier": measure_brier(points),
        "thresholds": [
            {"most_errors": most, "threshold": threshold, **cut_at(points, threshold)}
            for most, threshold in thresholds
            if threshold is not None
        ],
    }


def read_calibration(settings: AnySettings, adapter: str) -> Calibration:
    """Read how an adapter's confidence was calibrated; raises UserError where it was not, or for other weights."""
    name, folder = evaluated(settings.changed(adapter=adapter, eval_student="auto", decoding="free", eval_extra=False))
    path = paths(settings).eval_dir(name) / "confidence.json"
    advice = f"evaluate it: schema-student evaluate --adapter {adapter or 'FOLDER'}"
    if not path.is_file():
        raise UserError(f"the confidence of {adapter or 'a base'} is not calibrated ({path} is missing); {advice}")
    found = read_object(path, intercept=float, slope=float)
    if None in (found.get("intercept"), found.get("slope")):
        raise UserError(f"{path} holds no calibration: remove it, and {advice}")
    if found.get("adapter_digest") != digest(Path(folder) / WEIGHTS):
        raise UserError(f"{path} is of other weights than {adapter}; {advice} --overwrite")
    return Calibration(found["intercept"], found["slope"])
