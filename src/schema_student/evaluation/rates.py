"""Compute rates of verdict rows with Wilson intervals, by split, kind and language."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.records import EvaluationRow
from schema_student.core.statistics import wilson


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
        "truncated": sum(row.truncated for row in rows),
        "fences_stripped": sum(row.fences_stripped for row in rows),
        "prompts_too_long": sum(row.too_long for row in rows),
        "teacher_errors": sum(row.teacher_error is not None for row in rows),
    }


def summarize(rows: Sequence[EvaluationRow]) -> Row:
    """Compute evaluation_summary.json from the rows alone: overall, by split, by kind, by language; and the speed."""
    seconds, tokens = sum(row.seconds for row in rows), sum(row.tokens for row in rows)
    a_second = round(tokens / seconds, 1) if seconds else None
    speed: Row = {"tokens": tokens, "seconds": round(seconds, 2), "tokens_per_second": a_second}
    if any(row.mask_changes is not None for row in rows):
        speed["mask_changes"] = sum(row.mask_changes or 0 for row in rows)
    grouped = {f"{field}s": _rates_by(rows, field) for field in ("split", "kind", "language")}
    return {"total": len(rows), "overall": rates(rows), **grouped, "speed": speed}


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
    log.info(f"{summary['speed']['tokens_per_second'] or 0:,.0f} tokens/s" + (f"; {said}" if said else ""))
