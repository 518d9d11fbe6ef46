"""A student answers the test requests; each answer gets a verdict -> a row per prompt, and a summary with intervals.

Reads the test splits of d_03; writes student_runs/eval/NAME/: evaluation_results.jsonl and evaluation_summary.json.
The same prompts, decoding (greedy) and judge for every student, so that base, SFT and DPO stand side by side.

    evaluate_student(settings, "student-sft", "outputs/student_runs/student/checkpoint-final")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from schema_student.core.artifacts import open_artifact, read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import AnySettings, ResolvedSettings, resolve_auto
from schema_student.core.stamps import digest, make_stamp, versions
from schema_student.evaluation.rates import print_summary, summarize
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import Grade, grade
from schema_student.schema.prompts import render_row_prompt
from schema_student.schema.query_dsl import is_query_dsl, is_refusal
from schema_student.schema.ranks import RIGHT, VALID
from schema_student.student.choice import base_digest, choose_student
from schema_student.student.loading import Student, check_adapter, load_student
from schema_student.student.tokens import encode_prompt
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.client import Teacher, open_teacher
from schema_student.teacher.faults import TeacherFailure

DECIDING = ("prompt", "verdict", "loading", "length", "generation", "decoding", "eval")  # groups of settings


# ---------------------------------------------------------------------------------------------------------------------
# The step


def evaluate_student(given: AnySettings, name: str, adapter: str = "") -> Path:
    """Evaluate the base ("") or an adapter under a name; returns evaluation_summary.json.

    Raises UserError for an adapter that is missing or of another base, and for splits without rows.
    """
    choice = choose_student(given)
    settings = resolve_auto(given, choice.kind)
    where = paths(settings)
    results = where.eval_dir(name) / "evaluation_results.jsonl"
    inputs = [where.dataset]
    if adapter:
        check_adapter(adapter, choice)
        inputs.append(Path(adapter) / "adapter_model.safetensors")
    teacher = resolve_teacher(settings) if settings.eval.judge_valid else None
    asked = ("answers",) if teacher else ()
    stamp = make_stamp(settings, *DECIDING, *asked, base_digest=base_digest(choice.base))
    stamp["settings"]["teacher"] = teacher.stamp if teacher else None
    facts = {
        "run": resolve_run(settings),
        "name": name,
        "student": choice.name,
        "base": choice.base,
        "adapter": adapter or None,
        "judged_by": teacher.display_name if teacher else "comparison with the target; no teacher was asked",
    }
    with open_artifact(results, stamp, inputs, settings.run.overwrite) as artifact:
        summary = results.with_name("evaluation_summary.json")
        if artifact.done and summary.exists():
            return summary
        rows = read_jsonl(results) if artifact.done else artifact.rows
        requests = read_requests(where.dataset, settings.eval.eval_splits, settings.eval.eval_limit)
        same = None if settings.run.overwrite or len(rows) == len(requests) else _find_same(results, artifact.stamp)
        if same:
            log.info(f"evaluation of {name}: the weights are those of {same.parent.name}, whose answers are taken")
            for row in read_jsonl(same)[len(rows) :]:
                artifact.append(row)
                rows.append(row)
        elif len(rows) < len(requests):
            log.info(f"evaluation of {name}: {choice.name}, {adapter or 'no adapter'}")
            for row in _answer(requests, len(rows), settings, adapter, teacher):
                artifact.append(row)
                rows.append(row)
        write_json(summary, {**facts, **summarize(rows)})
        if not artifact.done:
            artifact.finish({"name": name, "adapter": adapter or None})
    print_summary(name, summarize(rows))
    return summary


def _find_same(results: Path, stamp: dict[str, Any]) -> Path | None:
    """Finished answers of the same weights to the same requests: where DPO kept the SFT student, there are some."""
    for other in sorted(results.parent.parent.glob(f"*/{results.name}")):
        meta = read_meta(other) if other != results else None
        if meta and {**meta, **stamp, "versions": versions(), "digest": digest(other)} == meta:
            return other
    return None


def read_dataset(path: Path) -> list[Row]:
    """The rows of d_03."""
    return [row.as_json() for row in read_rows(path, DatasetRow)]


def read_requests(dataset: Path, splits: Sequence[str], limit: int = 0) -> list[Row]:
    """Valid rows of these splits of d_03, split by split; with a limit, that many of each, evenly spread."""
    found = []
    dataset_rows = [row for row in read_dataset(dataset) if row["is_valid"]]
    for split in splits:
        rows = [row for row in dataset_rows if row["split"] == split]
        if limit and limit < len(rows):
            rows = [rows[i * len(rows) // limit] for i in range(limit)]
        found += rows
    if not found:
        raise UserError(f"{dataset} has no valid row of {', '.join(splits)}; give other --eval-splits or more schemas")
    return found


def _answer(requests: Sequence[Row], done: int, settings: ResolvedSettings, adapter: str, choice: Any) -> Iterator[Row]:
    """Rows of the requests after the first `done`.

    A batch cut by a kill is decoded again as a whole: the same batch, the same rounding, the same rows.
    """
    student = load_student(settings, adapter=adapter or None)
    size = int(settings.decoding.eval_batch_size)
    begins = range(done - done % size, len(requests), size)
    with ExitStack() as stack:
        teacher = stack.enter_context(open_teacher(settings, choice)) if choice else None
        first = min(begins, default=0)
        bar = stack.enter_context(
            tqdm(total=len(requests), initial=first, desc="  answers", unit="answer", smoothing=0)
        )
        for begin in begins:
            batch = requests[begin : begin + size]
            written = _generate(student, batch, settings, bar)
            judged = [_grade(*pair, settings) for pair in zip(batch, written, strict=True)]
            if teacher:
                _ask_teacher(judged, batch, teacher)
            yield from [row for row, _ in judged][max(0, done - begin) :]


# ---------------------------------------------------------------------------------------------------------------------
# Answers and verdicts


def _generate(student: Student, batch: Sequence[Row], settings: ResolvedSettings, bar: tqdm) -> list[Row]:
    """What the student wrote to each request: prompt_text, raw_output, tokens, seconds, truncated, too_long."""
    from schema_student.student.generation import generate

    prompts = [render_row_prompt(row, settings.prompt.schema_rendering) for row in batch]
    room = settings.length.max_seq_length - settings.generation.max_new_tokens
    lengths = [len(encode_prompt(student.tokenizer, prompt)) for prompt in prompts]
    short = [prompt for prompt, length in zip(prompts, lengths, strict=True) if length <= room]
    answers = iter(generate(student, short, settings.generation.max_new_tokens, len(batch), progress=bar))
    written = []
    for prompt, length in zip(prompts, lengths, strict=True):
        if length > room:
            bar.update()
            written.append(_written(prompt, "", 0, 0.0, False, f"the prompt has {length} tokens, of {room} that fit"))
        else:
            (answer,) = next(answers)
            written.append(_written(prompt, answer.text, answer.tokens, answer.seconds, not answer.finished, None))
    return written


def _written(prompt: str, text: str, tokens: int, seconds: float, truncated: bool, too_long: str | None) -> Row:
    facts = {"prompt_text": prompt, "raw_output": text, "tokens": tokens, "seconds": round(seconds, 4)}
    return {**facts, "truncated": truncated, "too_long": too_long}


def _grade(request: Row, written: Row, settings: ResolvedSettings) -> tuple[Row, Any]:
    """A row of evaluation_results, as far as it is known without the teacher, and the answer's value."""
    compiled = compile_schema(json.loads(request["schema_json"]), request["schema_id"])
    target = json.loads(request["ast_json"])
    strip = settings.verdict.strip_fences
    graded = grade(written["raw_output"], compiled, target, request.get("accepted"), strip)
    verdict = graded.verdict
    refused, should_refuse = _refusals(graded, target, compiled.schema)
    named = ("schema_id", "domain", "query", "split", "current_date", "language", "kind")
    row = {
        **{key: request.get(key) for key in named},
        "prompt_text": written["prompt_text"],
        "raw_output": written["raw_output"],
        "parsed": verdict.parsed,
        "parse_error": written["too_long"] or verdict.parse_error,
        "schema_valid": verdict.schema_valid,
        "violations": [asdict(violation) for violation in verdict.violations],
        "rank": graded.rank,
        "student_canonical": canonical(verdict.value, compiled.schema) if verdict.schema_valid else None,
        "target": target,
        "accepted": request.get("accepted"),
        "target_canonical": canonical(target, compiled.schema),
        "exact_match": verdict.parsed and _same(verdict.value, target),
        "semantic_match_target": graded.right,
        "teacher_verdict": None,
        "teacher_reason": None,
        "teacher_error": None,
        "semantic_pass": graded.right,
        "refused": refused,
        "should_refuse": should_refuse,
        "fences_stripped": verdict.fences_stripped,
        "truncated": written["truncated"],
        "too_long": written["too_long"] is not None,
        "tokens": written["tokens"],
        "seconds": written["seconds"],
    }
    return row, verdict.value


def _refusals(graded: Grade, target: Any, schema: Row) -> tuple[bool | None, bool | None]:
    """(whether the student refused validly, whether it should have); None for schemas without refusals."""
    if not is_query_dsl(schema):
        return None, None
    return graded.verdict.schema_valid and is_refusal(graded.verdict.value), is_refusal(target)


def _same(value: Any, target: Any) -> bool:
    """Equal as JSON, whatever the order of keys; true is not 1."""
    return json.dumps(value, sort_keys=True) == json.dumps(target, sort_keys=True)


def _ask_teacher(judged: Sequence[tuple[Row, Any]], requests: Sequence[Row], teacher: Teacher) -> None:
    """Add the teacher's verdict to valid rows. Where it fails to judge, the pass is unknown: that is never a "no"."""
    asked = zip(judged, requests, strict=True)
    valid = [(row, _question(value, request)) for (row, value), request in asked if row["schema_valid"]]
    answers = teacher.ask_many([("judge", question) for _, question in valid])
    for (row, _), answer in zip(valid, answers, strict=True):
        if isinstance(answer, TeacherFailure):
            row |= {"teacher_error": answer.reason, "semantic_pass": None}
        else:
            row |= {"teacher_verdict": answer["is_good"], "teacher_reason": answer["reason"]}
            row |= {"semantic_pass": answer["is_good"], "rank": RIGHT if answer["is_good"] else VALID}


def _question(value: Any, request: Row) -> Row:
    return {
        "schema": json.loads(request["schema_json"]),
        "query": request["query"],
        "current_date": request["current_date"],
        "answer": value,
        "reference": json.loads(request["ast_json"]),
        "accepted": request.get("accepted"),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Summary
