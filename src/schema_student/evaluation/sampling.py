"""Sample answers to the requests of an evaluation -> pass@k, self-agreement and what a vote would answer.

After evaluate, beside its greedy answers: student_runs/eval/NAME/samples-K-at-T.jsonl, and `samples` in its summary.
An answer is right as `grade` says, by the known answer alone; the teacher is not asked about samples.

    sample_student(settings, "student-sft", "outputs/student_runs/student/checkpoint-final", samples=8, temperature=0.7)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schema_student.core.artifacts import open_artifact
from schema_student.core.jsonl import Row, read_object, write_json
from schema_student.core.log import log
from schema_student.core.paths import evaluated_requests, paths
from schema_student.core.progress import Progress
from schema_student.core.records import DatasetRow
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.evaluation.completions import Completion
from schema_student.evaluation.endpoint import Endpoint, open_endpoint
from schema_student.evaluation.evaluate import Load, find_requests, load_once, stamp_evaluation
from schema_student.evaluation.samples import describe_samples, read_samples
from schema_student.evaluation.verdicts import grade_completion
from schema_student.schema.prompts import render_row_prompt
from schema_student.student.ask import find_room
from schema_student.student.choice import resolve_student
from schema_student.student.loading import Student
from schema_student.student.tokens import encode_prompt

CHUNK = 64  # requests whose samples are written at once


@dataclass(frozen=True)
class Sampling:
    """How many answers to a request are drawn, and how."""

    samples: int
    temperature: float

    @property
    def file_name(self) -> str:
        """Name the file of the samples."""
        return f"samples-{self.samples}-at-{self.temperature:g}.jsonl"


Draw = Callable[[Sequence[DatasetRow], Progress], list[list[Completion]]]


def sample_student(
    given: AnySettings, name: str, adapter: str, samples: int, temperature: float, load: Load | None = None
) -> Path:
    """Draw samples to the requests of a finished evaluation, grade them, and add them to its summary; returns that."""
    choice, settings = resolve_student(given)
    sampling, folder = Sampling(samples, temperature), paths(settings).eval_dir(name)
    path, summary = folder / sampling.file_name, folder / "evaluation_summary.json"
    stamp, _ = stamp_evaluation(settings, choice, None)
    stamp["settings"] |= {"samples": samples, "temperature": temperature}
    weights = [Path(adapter) / "adapter_model.safetensors"] if adapter else []
    with open_artifact(path, stamp, [evaluated_requests(settings), *weights], settings.run.overwrite) as artifact:
        if not artifact.done:
            requests = find_requests(settings)
            load = load or load_once(settings, adapter)
            for row in _sample(requests[len(artifact.rows) :], settings, load, sampling):
                artifact.append(row)
            artifact.finish({"samples": samples, "temperature": temperature})
    write_json(summary, {**read_object(summary), **read_samples(folder)})
    for found in read_samples(folder)["samples"]:
        log.info(describe_samples(found))
    return summary


def _sample(
    requests: Sequence[DatasetRow], settings: ResolvedSettings, load: Load, sampling: Sampling
) -> Iterator[Row]:
    """Rows of samples, one a request."""
    if not requests:
        return
    total = len(requests) * sampling.samples
    with (
        _open_drawing(settings, load, sampling) as draw,
        Progress(total=total, desc="  samples", unit="answer") as bar,
    ):
        for begin in range(0, len(requests), CHUNK):
            batch = requests[begin : begin + CHUNK]
            for row, written in zip(batch, draw(batch, bar), strict=True):
                yield describe_row(row, written, settings.verdict.strip_fences)


@contextmanager
def _open_drawing(settings: ResolvedSettings, load: Load, sampling: Sampling) -> Iterator[Draw]:
    """Open who draws: a student that is loaded here, or one that is served."""
    if settings.endpoint.endpoint:
        with open_endpoint(settings.endpoint) as endpoint:
            yield lambda batch, bar: _draw_there(endpoint, batch, settings, sampling, bar)
        return
    student = load()
    yield lambda batch, bar: _draw_here(student, batch, settings, sampling, bar)


def _draw_here(
    student: Student, batch: Sequence[DatasetRow], settings: ResolvedSettings, sampling: Sampling, bar: Progress
) -> list[list[Completion]]:
    """Answers by the student that is loaded; none to a prompt that is too long."""
    from schema_student.student.generation import generate

    prompts, room = _render(batch, settings), find_room(settings)
    short = [i for i, prompt in enumerate(prompts) if len(encode_prompt(student.tokenizer, prompt)) <= room]
    bar.update((len(prompts) - len(short)) * sampling.samples)
    drawn = generate(
        student,
        [prompts[i] for i in short],
        settings.generation.max_new_tokens,
        int(settings.decoding.eval_batch_size),
        temperature=sampling.temperature,
        samples=sampling.samples,
        seed=settings.run.seed,
        progress=bar,
        schemas=[batch[i].schema for i in short] if settings.evaluated.decoding == "constrained" else None,
    )
    found: list[list[Completion]] = [[] for _ in batch]
    for i, answers in zip(short, drawn, strict=True):
        found[i] = [Completion(prompts[i], each.text, each.tokens, truncated=not each.finished) for each in answers]
    return found


def _draw_there(
    endpoint: Endpoint, batch: Sequence[DatasetRow], settings: ResolvedSettings, sampling: Sampling, bar: Progress
) -> list[list[Completion]]:
    """Answers by a served student, each of a request with a seed of its own; none to a prompt that it refuses."""
    prompts = _render(batch, settings)
    found: list[list[Completion]] = [[] for _ in prompts]
    budget, context = settings.generation.max_new_tokens, settings.length.max_seq_length
    for i in range(sampling.samples):
        heard = endpoint.ask(prompts, budget, context, sampling.temperature, settings.run.seed + i)
        for drawn, prompt, each in zip(found, prompts, heard, strict=True):
            bar.update()
            if each.fault is None:
                drawn.append(Completion(prompt, each.reply.content, each.reply.answer_tokens, truncated=each.cut))
    return found


def _render(batch: Sequence[DatasetRow], settings: ResolvedSettings) -> list[str]:
    return [render_row_prompt(row, settings.prompt.schema_rendering) for row in batch]


def describe_row(request: DatasetRow, written: Sequence[Completion], strip_fences: bool) -> Row:
    """Grade the samples of a request: valid, right (null where no right answer is known), and what they mean."""
    graded = [grade_completion(request, each, strip_fences).row for each in written]
    told: Row = {key: getattr(request, key) for key in ("schema_id", "query", "split", "current_date")}
    return told | {
        "samples": [
            {
                "text": row.raw_output,
                "tokens": row.tokens,
                "truncated": row.truncated,
                "valid": row.schema_valid,
                "right": row.semantic_match_target,
                "canonical": row.student_canonical,
            }
            for row in graded
        ]
    }
