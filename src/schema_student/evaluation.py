"""A student answers the test requests; each answer gets a verdict -> a row per prompt, and a summary with intervals.

Reads the test splits of d_03; writes student_runs/eval/NAME/: evaluation_results.jsonl and evaluation_summary.json.
The same prompts, decoding (greedy) and judge for every student, so that base, SFT and DPO stand side by side.

    evaluate_student(settings, "student-sft", "outputs/student_runs/student/checkpoint-final")
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from schema_student import student as students
from schema_student.artifacts import (
    Row,
    digest,
    make_stamp,
    open_step,
    paths,
    read_jsonl,
    read_meta,
    versions,
    write_json,
)
from schema_student.config import Settings, UserError, resolve_auto, resolve_run
from schema_student.prompts import render_prompt
from schema_student.schemas import CompiledSchema, Verdict, canonical, compile_schema, judge, matches
from schema_student.teacher import Teacher, TeacherFailure, open_teacher, resolve_teacher

DECIDING = (
    *("schema_rendering", "strip_fences", "load_in_4bit", "dtype", "max_seq_length", "max_new_tokens"),
    *("eval_splits", "eval_limit", "eval_batch_size", "judge_valid"),
)
Z = 1.959964  # of a two-sided 95% interval


# ---------------------------------------------------------------------------------------------------------------------
# The step


def evaluate_student(settings: Settings, name: str, adapter: str = "") -> Path:
    """Evaluate the base ("") or an adapter under a name; returns evaluation_summary.json.

    Raises UserError for an adapter that is missing or of another base, and for splits without rows.
    """
    choice = students.choose_student(settings)
    settings = resolve_auto(settings, choice.kind)
    where = paths(settings)
    results = where.eval_dir(name) / "evaluation_results.jsonl"
    inputs = [where.dataset]
    if adapter:
        students.check_adapter(adapter, choice)
        inputs.append(Path(adapter) / "adapter_model.safetensors")
    teacher = resolve_teacher(settings) if settings.judge_valid else None
    stamp = make_stamp(settings, *DECIDING, base_digest=students.base_digest(choice.base))
    stamp["settings"]["teacher"] = teacher.stamp if teacher else None
    facts = {
        "run": resolve_run(settings),
        "name": name,
        "student": choice.name,
        "base": choice.base,
        "adapter": adapter or None,
        "judged_by": teacher.display_name if teacher else "comparison with the target; no teacher was asked",
    }
    with open_step(results, stamp, inputs, settings.overwrite) as step:
        summary = results.with_name("evaluation_summary.json")
        if step.done and summary.exists():
            return summary
        rows = read_jsonl(results) if step.done else step.rows
        requests = read_requests(where.dataset, settings.eval_splits, settings.eval_limit)
        same = None if settings.overwrite or len(rows) == len(requests) else _find_same(results, step.stamp)
        if same:
            print(f"evaluation of {name}: the weights are those of {same.parent.name}, whose answers are taken")
            for row in read_jsonl(same)[len(rows) :]:
                step.append(row)
                rows.append(row)
        elif len(rows) < len(requests):
            print(f"evaluation of {name}: {choice.name}, {adapter or 'no adapter'}")
            for row in _answer(requests, len(rows), settings, adapter, teacher):
                step.append(row)
                rows.append(row)
        write_json(summary, {**facts, **summarize(rows)})
        if not step.done:
            step.finish({"name": name, "adapter": adapter or None})
    print_summary(name, summarize(rows))
    return summary


def _find_same(results: Path, stamp: dict[str, Any]) -> Path | None:
    """Finished answers of the same weights to the same requests: where DPO kept the SFT student, there are some."""
    for other in sorted(results.parent.parent.glob(f"*/{results.name}")):
        meta = read_meta(other) if other != results else None
        if meta and {**meta, **stamp, "versions": versions(), "digest": digest(other)} == meta:
            return other
    return None


def read_requests(dataset: Path, splits: Sequence[str], limit: int = 0) -> list[Row]:
    """Valid rows of these splits of d_03, split by split; with a limit, that many of each, evenly spread."""
    found = []
    dataset_rows = [row for row in read_jsonl(dataset) if row["is_valid"]]
    for split in splits:
        rows = [row for row in dataset_rows if row["split"] == split]
        if limit and limit < len(rows):
            rows = [rows[i * len(rows) // limit] for i in range(limit)]
        found += rows
    if not found:
        raise UserError(f"{dataset} has no valid row of {', '.join(splits)}; give other --eval-splits or more schemas")
    return found


def _answer(requests: Sequence[Row], done: int, settings: Settings, adapter: str, choice: Any) -> Iterator[Row]:
    """Rows of the requests after the first `done`.

    A batch cut by a kill is decoded again as a whole: the same batch, the same rounding, the same rows.
    """
    student = students.load_student(settings, adapter=adapter or None)
    size = int(settings.eval_batch_size)
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
            judged = [_judge(*pair, settings) for pair in zip(batch, written, strict=True)]
            if teacher:
                _ask_teacher(judged, batch, teacher)
            yield from [row for row, _ in judged][max(0, done - begin) :]


# ---------------------------------------------------------------------------------------------------------------------
# Answers and verdicts


def _generate(student: students.Student, batch: Sequence[Row], settings: Settings, bar: tqdm) -> list[Row]:
    """What the student wrote to each request: prompt_text, raw_output, tokens, seconds, truncated, too_long."""
    from schema_student.generation import generate

    prompts = [
        render_prompt(json.loads(row["schema_json"]), row["query"], row["current_date"], settings.schema_rendering)
        for row in batch
    ]
    room = settings.max_seq_length - settings.max_new_tokens
    lengths = [len(students.encode_prompt(student.tokenizer, prompt)) for prompt in prompts]
    short = [prompt for prompt, length in zip(prompts, lengths, strict=True) if length <= room]
    answers = iter(generate(student, short, settings.max_new_tokens, len(batch), progress=bar))
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


def _judge(request: Row, written: Row, settings: Settings) -> tuple[Row, Any]:
    """A row of evaluation_results, as far as it is known without the teacher, and the answer's value."""
    compiled = compile_schema(json.loads(request["schema_json"]), request["schema_id"])
    verdict = judge(written["raw_output"], compiled, settings.strip_fences)
    target = json.loads(request["ast_json"])
    means = verdict.schema_valid and matches(verdict.value, target, compiled.schema, request.get("accepted"))
    refused, should_refuse = _refusals(verdict, target, compiled)
    named = ("schema_id", "domain", "query", "split", "current_date", "language", "kind")
    row = {
        **{key: request.get(key) for key in named},
        "prompt_text": written["prompt_text"],
        "raw_output": written["raw_output"],
        "parsed": verdict.parsed,
        "parse_error": written["too_long"] or verdict.parse_error,
        "schema_valid": verdict.schema_valid,
        "violations": [asdict(violation) for violation in verdict.violations],
        "rank": verdict.meaning(means),
        "student_canonical": canonical(verdict.value, compiled.schema) if verdict.schema_valid else None,
        "target": target,
        "accepted": request.get("accepted"),
        "target_canonical": canonical(target, compiled.schema),
        "exact_match": verdict.parsed and _same(verdict.value, target),
        "semantic_match_target": means,
        "teacher_verdict": None,
        "teacher_reason": None,
        "teacher_error": None,
        "semantic_pass": means,
        "refused": refused,
        "should_refuse": should_refuse,
        "fences_stripped": verdict.fences_stripped,
        "truncated": written["truncated"],
        "too_long": written["too_long"] is not None,
        "tokens": written["tokens"],
        "seconds": written["seconds"],
    }
    return row, verdict.value


def _refusals(verdict: Verdict, target: Any, compiled: CompiledSchema) -> tuple[bool | None, bool | None]:
    """(whether the student refused validly, whether it should have); None for schemas without refusals."""
    if compiled.schema.get("x-dsl") != "query":
        return None, None
    return verdict.schema_valid and "refusal" in verdict.value, "refusal" in target


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
            row |= {"semantic_pass": answer["is_good"], "rank": 5 if answer["is_good"] else 4}


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


def sign_test(fixed: int, broken: int) -> float:
    """Two-sided exact sign test (McNemar): the chance of a split at least this uneven where both ways are alike.

    >>> sign_test(8, 0)
    0.0078125
    """
    n, less = fixed + broken, min(fixed, broken)
    if n == 0:
        return 1.0
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(less + 1)) / 2**n)


def wilson(k: int, n: int) -> Row:
    """A share with its 95% interval (Wilson 1927): honest for few rows and at 0 and 1; null where there is nothing.

    >>> wilson(9, 10)
    {'rate': 0.9, 'low': 0.59585, 'high': 0.982124, 'n': 10, 'k': 9}
    """
    if n == 0:
        return {"rate": None, "low": None, "high": None, "n": 0, "k": 0}
    center = (k + Z * Z / 2) / (n + Z * Z)
    half = Z * math.sqrt(k * (n - k) / n + Z * Z / 4) / (n + Z * Z)
    low, high = (round(min(max(bound, 0.0), 1.0), 6) for bound in (center - half, center + half))
    return {"rate": round(k / n, 6), "low": low, "high": high, "n": n, "k": k}


def _share(rows: Iterable[Row], holds: Any) -> Row:
    """The share of rows for which `holds` is true; rows for which it is unknown (None) do not count."""
    found = [answer for answer in map(holds, rows) if answer is not None]
    return wilson(sum(map(bool, found)), len(found))


def rates(rows: Sequence[Row]) -> Row:
    """Every rate of the contract, and the counts beside them, for some rows of evaluation_results."""
    refusable = [row for row in rows if row["should_refuse"] is not None]

    def wrong(row: Row) -> bool | None:
        return None if row["semantic_pass"] is None else row["schema_valid"] and not row["semantic_pass"]

    return {
        "total": len(rows),
        "parsed_rate": _share(rows, lambda row: row["parsed"]),
        "schema_valid_rate": _share(rows, lambda row: row["schema_valid"]),
        "exact_match_rate": _share(rows, lambda row: row["exact_match"]),
        "semantic_match_target_rate": _share(rows, lambda row: row["semantic_match_target"]),
        "teacher_accept_rate": _share(rows, lambda row: row["teacher_verdict"]),
        "semantic_pass_rate": _share(rows, lambda row: row["semantic_pass"]),
        "wrong_but_valid_rate": _share(rows, wrong),
        "refusal_precision": _share([row for row in refusable if row["refused"]], lambda row: row["should_refuse"]),
        "refusal_recall": _share([row for row in refusable if row["should_refuse"]], lambda row: row["refused"]),
        "truncated": sum(row["truncated"] for row in rows),
        "fences_stripped": sum(row["fences_stripped"] for row in rows),
        "prompts_too_long": sum(row["too_long"] for row in rows),
        "teacher_errors": sum(row["teacher_error"] is not None for row in rows),
    }


def summarize(rows: Sequence[Row]) -> Row:
    """evaluation_summary.json from the rows alone: overall, by split, by kind, by language; and how fast it was."""
    seconds, tokens = sum(row["seconds"] for row in rows), sum(row["tokens"] for row in rows)
    speed = {"tokens": tokens, "seconds": round(seconds, 2)}
    speed["tokens_per_second"] = round(tokens / seconds, 1) if seconds else None
    grouped = {
        f"{field}s": {value: rates([row for row in rows if row[field] == value]) for value in _values(rows, field)}
        for field in ("split", "kind", "language")
    }
    return {"total": len(rows), "overall": rates(rows), **grouped, "speed": speed}


def _values(rows: Sequence[Row], field: str) -> list[str]:
    return list(dict.fromkeys(row[field] for row in rows if row[field]))


def print_summary(name: str, summary: Row) -> None:
    """The rates that matter, split by split, on the terminal."""
    shown = ("schema_valid_rate", "semantic_pass_rate", "exact_match_rate", "wrong_but_valid_rate")
    print(f"{name:<24}{'prompts':>8}" + "".join(f"{key.removesuffix('_rate').replace('_', ' '):>18}" for key in shown))
    for split, found in {**summary["splits"], "overall": summary["overall"]}.items():
        cells = ("-" if found[key]["rate"] is None else f"{found[key]['rate']:.1%}" for key in shown)
        print(f"{split:<24}{found['total']:>8}" + "".join(f"{cell:>18}" for cell in cells))
    odd = ("truncated", "prompts_too_long", "teacher_errors", "fences_stripped")
    counts = {key.replace("_", " "): summary["overall"][key] for key in odd}
    said = ", ".join(f"{key} {count}" for key, count in counts.items() if count)
    print(f"{summary['speed']['tokens_per_second'] or 0:,.0f} tokens/s" + (f"; {said}" if said else ""))
