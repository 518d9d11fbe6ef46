"""Compute rates of verdict rows with Wilson intervals, by split, kind and language."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.records import EvaluationRow
from schema_student.core.statistics import bootstrap_clusters, wilson
from schema_student.evaluation.degeneration import KINDS, find_degeneration

LARGEST = 700.0  # nats, whose exponential a double holds


def _share(rows: Iterable[EvaluationRow], holds: Any) -> Row:
    """The share of rows for which `holds` is true; rows for which it is unknown (None) do not count."""
    found = [answer for answer in map(holds, rows) if answer is not None]
    return wilson(sum(map(bool, found)), len(found))


def rates(rows: Sequence[EvaluationRow]) -> Row:
    """Compute every rate and the counts beside them for some rows of evaluation_results."""
    refusable = [row for row in rows if row.should_refuse is not None]

    def wrong(row: EvaluationRow) -> bool | None:
        return None if row.semantic_pass is None else row.schema_valid and not row.semantic_pass

    return {
        "total": len(rows),
        "parsed_rate": _share(rows, lambda row: row.parsed),
        "schema_valid_rate": _share(rows, lambda row: row.schema_valid),
        "exact_match_rate": _share(rows, lambda row: row.exact_match),
        "semantic_match_target_rate": _share(rows, lambda row: row.semantic_match_target),
        "teacher_accept_rate": _share(rows, lambda row: row.teacher_verdict),
        "semantic_pass_rate": _share(rows, lambda row: row.semantic_pass),
        "wrong_but_valid_rate": _share(rows, wrong),
        "refusal_precision": _share([row for row in refusable if row.refused], lambda row: row.should_refuse),
        "refusal_recall": _share([row for row in refusable if row.should_refuse], lambda row: row.refused),
        "suggestion_answerable_rate": _share(rows, lambda row: row.suggestion_answerable),
        "same_language_rate": _share(rows, lambda row: row.same_language),
        "p_truth": _mean([row.p_truth for row in rows if row.p_truth is not None]),
        "reference_perplexity": _measure_perplexity(rows),
        "by_schema": {"semantic_pass_rate": _by_schema(rows)},
        "truncated": sum(row.truncated for row in rows),
        "fences_stripped": sum(row.fences_stripped for row in rows),
        "prompts_too_long": sum(row.too_long for row in rows),
        "teacher_errors": sum(row.teacher_error is not None for row in rows),
    }


def _measure_perplexity(rows: Sequence[EvaluationRow]) -> float | None:
    """The perplexity of reference answers by token; null where none was read."""
    read = [row for row in rows if row.reference_logp is not None and row.reference_tokens]
    nats = -math.fsum(row.reference_logp or 0.0 for row in read)
    return compute_perplexity(nats, sum(row.reference_tokens or 0 for row in read))


def compute_perplexity(nats: float, count: int) -> float | None:
    """Compute exp(nats / count), of tokens or characters; null where there is none, or beyond a double.

    >>> compute_perplexity(2 * math.log(8), 2), compute_perplexity(1.0, 0)
    (8.0, None)
    """
    if not count or nats / count > LARGEST:
        return None
    return round(math.exp(nats / count), 6)


def _mean(values: Sequence[float]) -> float | None:
    return round(math.fsum(values) / len(values), 6) if values else None


def _by_schema(rows: Sequence[EvaluationRow]) -> Row:
    """The interval of semantic_pass_rate where whole schemas are drawn; null with fewer than two schemas."""
    grouped: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row.semantic_pass is not None:
            grouped[row.schema_id].append(row.semantic_pass)
    found = bootstrap_clusters([sum(passed) for passed in grouped.values()], [*map(len, grouped.values())])
    low, high = found or (None, None)
    return {"low": low, "high": high, "schemas": len(grouped)}


def measure_fields(rows: Iterable[EvaluationRow]) -> dict[str, Row]:
    """Compute for each condition's field or property how often it is right: of those given, and of those expected.

    The most often wrong first. An answer that is not JSON gives nothing of what was expected.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for part in row.parts:
            names = [name for name in ("given", "expected", "right") if part.get(name)]
            counts[str(part.get("name"))].update(names)
    wrong = sorted(counts, key=lambda name: (counts[name]["right"] - counts[name]["expected"], name))
    return {
        name: {
            "precision": wilson(counts[name]["right"], counts[name]["given"]),
            "recall": wilson(counts[name]["right"], counts[name]["expected"]),
        }
        for name in wrong
    }


def measure_speed(rows: Sequence[EvaluationRow]) -> Row:
    """Compute tokens, seconds and tokens per second: of all answers, and of single ones by percentile.

    An answer's seconds are its share of those of the batch that it was decoded in; those that were read do not count.
    """
    count, rows = len(rows), [row for row in rows if not row.read]
    seconds, tokens = sum(row.seconds for row in rows), sum(row.tokens for row in rows)
    a_second = round(tokens / seconds, 1) if seconds else None
    timed = [row for row in rows if row.seconds and row.tokens]
    speed: Row = {"tokens": tokens, "seconds": round(seconds, 2), "tokens_per_second": a_second}
    speed["read"] = count - len(rows)
    speed["seconds_percentiles"] = _percentiles([row.seconds for row in timed], 3)
    speed["tokens_per_second_percentiles"] = _percentiles([row.tokens / row.seconds for row in timed], 1)
    speed["tokens_percentiles"] = _percentiles([row.tokens for row in timed], 0)
    if any(row.mask_changes is not None for row in rows):
        speed["mask_changes"] = sum(row.mask_changes or 0 for row in rows)
    return speed


def _percentiles(values: Sequence[float], digits: int) -> Row:
    import numpy

    if not values:
        return {}
    return {f"p{p}": round(float(numpy.percentile(values, p)), digits) for p in (10, 50, 90, 99)}


def count_degenerate(rows: Iterable[EvaluationRow]) -> dict[str, int]:
    """Count the degenerate answers by kind."""
    found = Counter(map(find_degeneration, rows))
    return {kind: found[kind] for kind in KINDS}


def summarize(rows: Sequence[EvaluationRow]) -> Row:
    """Compute evaluation_summary.json from the rows alone: rates by split, kind and language; fields; the speed."""
    grouped = {f"{field}s": _rates_by(rows, field) for field in ("split", "kind", "language")}
    found: Row = {"total": len(rows), "overall": rates(rows), **grouped, "fields": measure_fields(rows)}
    return {**found, "degenerate": count_degenerate(rows), "speed": measure_speed(rows)}


def _rates_by(rows: Sequence[EvaluationRow], field: str) -> dict[str, Row]:
    """The rates for each value of a field."""
    grouped: dict[str, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        if value := getattr(row, field):
            grouped[value].append(row)
    return {value: rates(some) for value, some in grouped.items()}


def describe_decodings(free: Row, constrained: Row) -> list[str]:
    """Say what constrained decoding gave and cost: two summaries of the same requests side by side."""
    lines = [f"{'':<24}{'free':>12}{'constrained':>14}"]
    for name in ("schema_valid_rate", "semantic_pass_rate"):
        cells = [f"{summary['overall'][name]['rate'] or 0:.1%}" for summary in (free, constrained)]
        lines.append(f"{name.removesuffix('_rate').replace('_', ' '):<24}{cells[0]:>12}{cells[1]:>14}")
    for name in ("truncated", "tokens_per_second"):
        cells = [f"{(summary['overall'] | summary['speed'])[name] or 0:,.0f}" for summary in (free, constrained)]
        lines.append(f"{name.replace('_', ' '):<24}{cells[0]:>12}{cells[1]:>14}")
    speed = constrained["speed"]
    share = speed["mask_changes"] / speed["tokens"] if speed["tokens"] else 0.0
    return [*lines, f"{'tokens changed':<24}{'':>12}{share:>14.1%}"]


def print_summary(name: str, summary: Row) -> None:
    """Log the main rates, split by split."""
    shown = ("schema_valid_rate", "semantic_pass_rate", "exact_match_rate", "wrong_but_valid_rate")
    log.info(
        f"{name:<24}{'prompts':>8}" + "".join(f"{key.removesuffix('_rate').replace('_', ' '):>18}" for key in shown)
    )
    for split, found in {**summary["splits"], "overall": summary["overall"]}.items():
        cells = ("-" if found[key]["rate"] is None else f"{found[key]['rate']:.1%}" for key in shown)
        log.info(f"{split:<24}{found['total']:>8}" + "".join(f"{cell:>18}" for cell in cells))
    odd = ("truncated", "prompts_too_long", "teacher_errors", "fences_stripped")
    counts = {key.replace("_", " "): summary["overall"][key] for key in odd}
    said = ", ".join(f"{key} {count}" for key, count in counts.items() if count)
    if (p_truth := summary["overall"]["p_truth"]) is not None:
        log.info(
            f"P(truth) {p_truth:.1%}, the likelihood of right answers; {summary['speed']['read']} known by reading"
        )
    log.info(f"{summary['speed']['tokens_per_second'] or 0:,.0f} tokens/s" + (f"; {said}" if said else ""))
