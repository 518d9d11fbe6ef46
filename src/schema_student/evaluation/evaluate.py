"""Evaluate a student: answer the test requests, judge each answer -> a row a prompt, and a summary with intervals.

Reads the test splits of d_03; writes student_runs/eval/NAME/: evaluation_results.jsonl and evaluation_summary.json.
The same prompts, decoding (greedy) and judge for every student, so that base, SFT and each link stand side by side.
With eval_extra the requests are those of d_03_extra_tests.jsonl, with eval_data a person's own, which need no run.

    evaluate_student(settings, "student-sft", "outputs/student_runs/student/checkpoint-final")
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from schema_student.core.artifacts import Artifact, open_artifact, read_meta
from schema_student.core.chunks import ALONE, HERE, Opening, Ranks, map_chunks
from schema_student.core.errors import UserError
from schema_student.core.jsonl import dump_json, write_json
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import evaluated_requests, paths
from schema_student.core.processes import is_first_process
from schema_student.core.progress import Progress
from schema_student.core.records import DatasetRow, EvaluationRow, read_rows
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.core.stamps import digest, dump_limit, make_stamp, versions
from schema_student.evaluation.completions import Completion, complete, complete_by_teacher, complete_there
from schema_student.evaluation.endpoint import identify_endpoint, open_endpoint
from schema_student.evaluation.eval_data import describe_eval_data, limit_splits, read_eval_data, stamp_eval_data
from schema_student.evaluation.examples import read_examples
from schema_student.evaluation.rates import print_summary, summarize
from schema_student.evaluation.samples import read_samples
from schema_student.evaluation.verdicts import ask_teacher, grade_completion
from schema_student.schema.prompts import warn_by_heart
from schema_student.student.choice import StudentChoice, base_digest, resolve_student, revision_facts
from schema_student.student.loading import Student, check_adapter, load_student
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.client import open_teacher

DECIDING = ("prompt", "verdict", "loading", "length", "generation", "decoding", "eval")  # groups of settings
SERVED = ("prompt", "verdict", "length", "generation", "eval")  # and of a served student
TAUGHT = ("prompt", "verdict", "eval", "answers")  # and of the teacher as a student
BY_TEACHER = ("answers",)  # and further ones where the teacher judges
Complete = Callable[[Sequence[DatasetRow], ResolvedSettings, Progress], list[Completion]]
Load = Callable[[], Student]
BATCHES = 8  # whose rows are written at once, each making room for the next: what a kill can cost


class _LoadedOnce:
    """A student that is loaded where it is first asked; another process that is given this loads its own."""

    def __init__(self, settings: AnySettings, adapter: str) -> None:
        self._settings, self._adapter = settings, adapter
        self._student: Student | None = None

    def __call__(self) -> Student:
        import torch

        if self._student is None:
            self._student = load_student(self._settings, adapter=self._adapter or None)
            if self._adapter and self._student.model.dtype == torch.float32:
                self._student.model.merge_adapter()
        return self._student

    def __reduce__(self) -> tuple[Any, ...]:
        return _LoadedOnce, (self._settings, self._adapter)


def load_once(settings: AnySettings, adapter: str) -> Load:
    """Load a student where it is first asked, once for all that asks it.

    A LoRA in float32 is added to its base's weights, with which reading costs less; in bfloat16 that would round them.
    """
    return _LoadedOnce(settings, adapter)


def evaluate_student(
    given: AnySettings, name: str, adapter: str = "", load: Load | None = None, ranks: Ranks = ALONE
) -> Path:
    """Evaluate the base ("") or an adapter under a name, loaded by `load`; returns evaluation_summary.json.

    Of several `ranks` the first one writes, and the others complete their share of the requests.

    Raises UserError for an adapter that is missing or of another base, and for splits without rows.
    """
    choice, settings = resolve_student(given)
    assert settings.evaluated.decoding != "both", "an evaluation is of one kind of decoding"
    where = paths(settings)
    results = where.eval_dir(name) / "evaluation_results.jsonl"
    summary = results.with_name("evaluation_summary.json")
    inputs = [evaluated_requests(settings)]
    if adapter:
        check_adapter(adapter, choice)
        inputs.append(Path(adapter) / "adapter_model.safetensors")
    load = load or load_once(settings, adapter)
    if ranks is not ALONE and not is_first_process():
        _complete_share(settings, load, ranks)
        return summary
    teacher = resolve_teacher(settings) if settings.eval.judge_valid else None
    stamp, student = stamp_evaluation(settings, choice, teacher)
    with open_artifact(results, stamp, inputs, settings.run.overwrite) as artifact:
        rows = read_rows(artifact.work, EvaluationRow) if artifact.work.exists() else []
        if not artifact.done:
            requests = find_requests(settings)
            warn_by_heart((request.schema_json for request in requests), settings.prompt.schema_rendering)
            again = settings.run.overwrite or settings.evaluated.answer_all or len(rows) == len(requests)
            same = None if again else find_same_answers(results, artifact.stamp)
            if same:
                log.info(f"evaluation of {name}: the weights are those of {same.parent.name}, whose answers are taken")
            elif len(rows) < len(requests):
                log.info(f"evaluation of {name}: {student['student']}, {adapter or 'no adapter'}")
            ranks.tell(len(requests) if same else len(rows))
            fill_artifact(
                artifact, rows, same, lambda done: answer_requests(requests, done, settings, load, teacher, ranks)
            )
        else:
            ranks.tell(sys.maxsize)
        facts = _describe(settings, name, adapter, student, teacher, rows)
        if not artifact.done:
            artifact.finish({"name": name, "adapter": adapter or None})
            print_summary(name, summarize(rows))
            if "without_answer" in facts:
                log.info(str(facts["without_answer"]))
        _write_summary(summary, {**facts, **summarize(rows), **read_samples(results.parent)}, artifact.done)
    return summary


def _describe(
    settings: ResolvedSettings,
    name: str,
    adapter: str,
    student: dict[str, Any],
    teacher: TeacherChoice | None,
    rows: Sequence[EvaluationRow],
) -> dict[str, Any]:
    """What a summary says beside its rates."""
    return {
        "run": resolve_run(settings),
        "name": name,
        **student,
        "adapter": adapter or None,
        "schema_rendering": settings.prompt.schema_rendering,
        "decoding": settings.evaluated.decoding,
        "judged_by": teacher.display_name if teacher else "comparison with the target; no teacher was asked",
        **describe_eval_data(settings, rows, teacher),
        **dump_limit(settings),
    }


def fill_artifact(
    artifact: Artifact, rows: list[EvaluationRow], same: Path | None, answer: Callable[[int], Iterable[EvaluationRow]]
) -> None:
    """Add the rows that are missing to an artifact and to `rows`: those of `same`, else what answers the requests.

    `same` is the file of finished answers of the same weights (find_same_answers); `answer` is given how many are done.
    """
    for row in read_rows(same, EvaluationRow)[len(rows) :] if same else answer(len(rows)):
        artifact.append(row.as_json())
        rows.append(row)


def stamp_evaluation(
    settings: ResolvedSettings, choice: StudentChoice, teacher: TeacherChoice | None, *more: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Collect what decides the answers, and what a summary says of the student: a local one, or one that is served.

    `more` are further groups of settings that decide.
    """
    by_teacher = (*BY_TEACHER, *more) if teacher else more
    if url := settings.endpoint.endpoint:
        served = identify_endpoint(settings.endpoint)
        stamp = make_stamp(settings, *SERVED, *by_teacher, endpoint=served)
        student = {"student": f"{served['model']} at {url}", "base": None}
    elif settings.evaluated.eval_student == "teacher":
        answered_by = resolve_teacher(settings)
        stamp = make_stamp(settings, *TAUGHT, *more, answered_by=answered_by.stamp)
        student = {"student": answered_by.display_name, "base": None}
    else:
        stamp = make_stamp(settings, *DECIDING, *by_teacher, base_digest=base_digest(choice.base))
        stamp |= revision_facts(choice.base)
        stamp["settings"]["answer_all"] = settings.evaluated.answer_all or settings.evaluated.decoding != "free"
        stamp["settings"] |= {"examples": settings.evaluated.examples} if settings.evaluated.examples else {}
        student = {"student": choice.name, "base": choice.base}
    stamp["settings"] |= {"decoding": settings.evaluated.decoding, **stamp_eval_data(settings)}
    stamp["settings"]["teacher"] = teacher.stamp if teacher else None
    return stamp, student


def _write_summary(path: Path, found: dict[str, Any], was_done: bool) -> None:
    """Write what follows from the rows, unless it stands there; says so where it had been written before."""
    known = path.read_bytes() if path.exists() else b""
    if known == dump_json(found).encode():
        return
    if was_done:
        log.info(f"  {path} {'was not what follows from the rows' if known else 'was missing'}: made again from them")
    write_json(path, found)


def find_same_answers(results: Path, stamp: dict[str, Any]) -> Path | None:
    """Find finished answers of the same weights to the same requests: DPO that kept the SFT student has some."""
    for other in sorted(results.parent.parent.glob(f"*/{results.name}")):
        meta = read_meta(other) if other != results else None
        if meta and {**meta, **stamp, "versions": versions(), "digest": digest(other)} == meta:
            return other
    return None


def find_requests(settings: AnySettings) -> list[DatasetRow]:
    """Read the requests that are answered."""
    if settings.evaluated.eval_data:
        return read_eval_data(settings)
    return read_requests(
        evaluated_requests(settings), settings.eval.eval_splits, settings.eval.eval_limit, settings.part.max_samples
    )


def read_requests(dataset: Path, splits: Sequence[str], limit: int = 0, max_samples: int = 0) -> list[DatasetRow]:
    """Read the valid rows of these splits of d_03, split by split; limited as limit_splits does."""
    valid = [row for row in read_rows(dataset, DatasetRow) if row.is_valid]
    found = limit_splits(valid, splits, limit, max_samples)
    if not found:
        raise UserError(f"{dataset} has no valid row of {', '.join(splits)}; give other --eval-splits or more schemas")
    return found


def _check_constraints(student: Student, requests: Sequence[DatasetRow]) -> None:
    """Refuse a schema that cannot constrain its answers, before any is written."""
    from schema_student.student.generation import constrain

    for schema_id, text in {row.schema_id: row.schema_json for row in requests}.items():
        try:
            constrain(student, [json.loads(text)])
        except UserError as error:
            raise UserError(f"{schema_id}: {error}; take --decoding free") from None


@contextmanager
def _open_student(settings: ResolvedSettings, load: Load, requests: Sequence[DatasetRow]) -> Iterator[Complete]:
    """Open who answers: a student that is loaded here, one that is served, or the teacher."""
    if settings.endpoint.endpoint:
        with open_endpoint(settings.endpoint) as endpoint:
            yield partial(complete_there, endpoint)
        return
    if settings.evaluated.eval_student == "teacher":
        with open_teacher(settings) as teacher:
            yield partial(complete_by_teacher, teacher)
        return
    student = load()
    if settings.evaluated.decoding == "constrained":
        _check_constraints(student, requests)
    yield partial(complete, student, examples=read_examples(settings))


@contextmanager
def _open_apart(
    settings: ResolvedSettings, load: Load, requests: Sequence[DatasetRow]
) -> Iterator[Callable[[Sequence[DatasetRow]], list[Completion]]]:
    """Open who answers in a process that writes nothing."""
    with _open_student(settings, load, requests) as complete_batch, Progress(disable=True) as bar:
        yield lambda batch: complete_batch(batch, settings, bar)


def _complete_all(
    batches: Sequence[Sequence[DatasetRow]],
    settings: ResolvedSettings,
    load: Load,
    ranks: Ranks,
    bar: Progress,
) -> Generator[list[Completion]]:
    """Complete the batches, each as one process would: here, by all ranks, or by the workers of a cluster."""
    every = [request for batch in batches for request in batch]
    cluster, local = settings.cluster, not settings.endpoint.endpoint and settings.evaluated.eval_student != "teacher"
    if ranks is ALONE and (cluster.on == HERE or not local):
        with _open_student(settings, load, every) as complete_batch:
            yield from (complete_batch(batch, settings, bar) for batch in batches)
        return
    with closing(Opening(partial(_open_apart, settings, load, every))) as complete_batch_apart:
        if ranks is ALONE:
            found = map_chunks(complete_batch_apart, batches, cluster.on, cluster.workers)
        else:
            kind = TypeAdapter(list[Completion])
            packed = ranks.share(lambda batch: kind.dump_python(complete_batch_apart(batch), mode="json"), batches)
            found = map(kind.validate_python, packed)
        for completions in found:
            bar.update(len(completions))
            yield completions


def _complete_share(settings: ResolvedSettings, load: Load, ranks: Ranks) -> None:
    """Be one of several processes but the first: complete a share of the requests, and write nothing."""
    requests, done = find_requests(settings), ranks.tell(None)
    if done < len(requests):
        with Progress(disable=True) as bar:
            for _ in _complete_all(_cut_batches(requests, done, settings)[1], settings, load, ranks, bar):
                pass


def _cut_batches(
    requests: Sequence[DatasetRow], done: int, settings: ResolvedSettings
) -> tuple[int, list[Sequence[DatasetRow]]]:
    """Cut the requests into what is written at once, from the batch in which those after the first `done` begin."""
    size = BATCHES * int(settings.decoding.eval_batch_size)
    begun = done - done % size
    return begun, [requests[begin : begin + size] for begin in range(begun, len(requests), size)]


def answer_requests(
    requests: Sequence[DatasetRow],
    done: int,
    settings: ResolvedSettings,
    load: Load,
    choice: TeacherChoice | None,
    ranks: Ranks = ALONE,
) -> Iterator[EvaluationRow]:
    """Let a student answer the requests after the first `done`: their rows.

    What a kill cuts is decoded again from its first row on: the same company, the same rounding, the same rows.
    """
    if done >= len(requests):
        return
    begun, batches = _cut_batches(requests, done, settings)
    with ExitStack() as stack:
        teacher = stack.enter_context(open_teacher(settings, choice)) if choice else None
        bar = stack.enter_context(
            Progress(total=len(requests), initial=begun, desc="  answers", unit="answer", smoothing=0)
        )
        written_batches = stack.enter_context(closing(_complete_all(batches, settings, load, ranks, bar)))
        for batch, written in zip(batches, written_batches, strict=True):
            strip = settings.verdict.strip_fences
            graded = [grade_completion(*pair, strip) for pair in zip(batch, written, strict=True)]
            graded = ask_teacher(graded, teacher) if teacher else graded
            yield from [each.row for each in graded][max(0, done - begun) :]
            begun += len(batch)
