"""Compute what samples say of a student: pass@k, self-agreement, and what a vote among them would answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.artifacts import read_meta
from schema_student.core.jsonl import Row, read_jsonl
from schema_student.core.statistics import bootstrap_clusters, pass_at_k, wilson
from schema_student.student.ask import find_majority


def read_samples(folder: Path) -> Row:
    """Read what the finished samples of an evaluation say: {"samples": [...]}, {} without any.

    Samples that other settings or requests made than its greedy answers are those of an evaluation before.
    """
    found, greedy = [], read_meta(folder / "evaluation_results.jsonl") or {}
    for path in sorted(folder.glob("samples-*.jsonl")):
        meta = read_meta(path)
        if meta and _is_of(meta, greedy):
            facts = {name: meta[name] for name in ("samples", "temperature")}
            found.append({**facts, **summarize_samples(read_jsonl(path), meta["samples"])})
    return {"samples": found} if found else {}


def _is_of(meta: Row, greedy: Row) -> bool:
    """Whether samples were made as the greedy answers were, but for the teacher, who is not asked about samples."""
    ours, theirs = meta["settings"], greedy.get("settings", {})
    shared = (ours.keys() & theirs.keys()) - {"teacher"}
    return meta.get("inputs") == greedy.get("inputs") and all(ours[name] == theirs[name] for name in shared)


def summarize_samples(rows: Sequence[Row], samples: int) -> Row:
    """Compute pass@k for k up to the number of samples, of valid and of right ones, self-agreement, and the vote.

    A prompt that nothing was drawn to passes at no k. Self-agreement is the share of a prompt's samples that mean what
    most of its valid ones mean; the vote is right where that meaning is.
    """
    known = [row for row in rows if all(each["right"] is not None for each in row["samples"])]
    votes = [_vote(row["samples"]) for row in rows if row["samples"]]
    decided = [right for _, right in votes if right is not None]
    return {
        "prompts": len(rows),
        "pass_at_k": _pass_at_all(known, "right", samples),
        "valid_at_k": _pass_at_all(rows, "valid", samples),
        "agreement": _mean([share for share, _ in votes]),
        "vote": wilson(sum(decided), len(decided)),
    }


def _pass_at_all(rows: Sequence[Row], what: str, samples: int) -> Row:
    found = {}
    for k in range(1, samples + 1):
        counts = [(len(row["samples"]), sum(each[what] for each in row["samples"])) for row in rows]
        found[str(k)] = _mean([pass_at_k(n, right, k) if n >= k else 0.0 for n, right in counts])
    return found


def _vote(samples: Sequence[Row]) -> tuple[float, bool | None]:
    """(share of the samples that agree, whether what they agree on is right); nothing valid agrees on nothing."""
    valid = [each for each in samples if each["valid"]]
    if not valid:
        return 0.0, None if samples[0]["right"] is None else False
    winner, agreeing = find_majority([each["canonical"] for each in valid])
    return agreeing / len(samples), valid[winner]["right"]


def _mean(values: Sequence[float]) -> Row:
    """A mean over prompts with its 95% interval (percentile bootstrap over prompts)."""
    if not values:
        return {"rate": None, "low": None, "high": None, "n": 0}
    low, high = bootstrap_clusters(values, [1] * len(values)) or (None, None)
    return {"rate": round(math.fsum(values) / len(values), 6), "low": low, "high": high, "n": len(values)}


def describe_samples(found: Row) -> str:
    """Say what samples came to, in one line."""
    last = str(found["samples"])
    counted, of = ("pass_at_k", "as asked") if found["pass_at_k"]["1"]["n"] else ("valid_at_k", "valid")
    rates = {k: found[counted][k]["rate"] or 0.0 for k in ("1", last)}
    said = ", ".join(f"pass@{k} {rate:.1%}" for k, rate in rates.items())
    vote = f", by vote {found['vote']['rate']:.1%}" if found["vote"]["n"] else ""
    agreement = found["agreement"]["rate"] or 0.0
    return f"{last} samples at temperature {found['temperature']:g}: {of} {said}{vote}; self-agreement {agreement:.1%}"
