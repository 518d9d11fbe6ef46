"""Count what a teacher's answers cost: questions, requests, retries, tokens, seconds."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any


class Usage:
    """Counts of a run, by all threads: questions, requests, retries, rejected answers, time, tokens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._cost: Counter[str] = Counter()  # of all answers used, also of those from disk
        self._rejected: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()

    @property
    def asked(self) -> int:
        return self._counts["asked"]

    def count(self, **numbers: int) -> None:
        """Add to counts: asked, cache_hits, requests, retries, repairs."""
        with self._lock:
            self._counts.update(numbers)

    def count_cost(self, cost: dict[str, Any]) -> None:
        """Add seconds and tokens."""
        with self._lock:
            for name in ("seconds", "prompt_tokens", "answer_tokens"):
                self._cost[name] += cost.get(name, 0)

    def reject(self, kind: str) -> None:
        """Count a rejected answer."""
        with self._lock:
            self._rejected[kind] += 1

    def fail(self, kind: str) -> None:
        """Count a failed request."""
        with self._lock:
            self._faults[kind] += 1

    def tallies(self) -> list[dict[str, Any]]:
        """Return all counts, for who counts for several processes."""
        with self._lock:
            return [dict(each) for each in (self._counts, self._cost, self._rejected, self._faults)]

    def add(self, tallies: list[dict[str, Any]]) -> None:
        """Add the counts of another process."""
        with self._lock:
            for mine, others in zip((self._counts, self._cost, self._rejected, self._faults), tallies, strict=True):
                mine.update(others)

    def line(self) -> str:
        """Write the counts for a progress bar."""
        counts, cost = self._counts, self._cost
        parts = [f"{_short(cost['prompt_tokens'])} tokens in", f"{_short(cost['answer_tokens'])} out"]
        named = {
            "cached": counts["cache_hits"],
            "retried": counts["retries"],
            "rejected": sum(self._rejected.values()),
        }
        return ", ".join(parts + [f"{n} {name}" for name, n in named.items() if n])

    def summary(self, rows: int) -> dict[str, Any]:
        """Summarize the counts for a file, and what each of `rows` kept rows cost."""
        names = ("asked", "cache_hits", "requests", "retries", "repairs")
        with self._lock:
            cost = {name: round(self._cost[name], 3) for name in ("seconds", "prompt_tokens", "answer_tokens")}
            return {
                **{name: self._counts[name] for name in names},
                "faults": dict(sorted(self._faults.items())),
                "rejected_answers": dict(sorted(self._rejected.items())),
                "cost": cost,
                "cost_a_row": {name: round(value / rows, 3) for name, value in cost.items()} if rows else {},
            }


def usage_line(usage: dict[str, Any], rows: int) -> str:
    """Write in one line what a run asked and what a kept row cost, from Usage.summary."""
    each, cost = usage["cost_a_row"], usage["cost"]
    counts = f"{usage['asked']} questions in {usage['requests']} requests, {usage['cache_hits']} answers from disk"
    tokens = f"{_short(cost['prompt_tokens'])} tokens in, {_short(cost['answer_tokens'])} out"
    parts = [f"teacher: {counts}, {cost['seconds']:.1f} s of answering, {tokens}"]
    if each:
        a_row = f"{each['seconds']:.3f} s, {each['prompt_tokens']:.0f} tokens in, {each['answer_tokens']:.0f} out"
        parts.append(f"a row of the {rows} kept: {a_row}")
    for name in ("retries", "repairs"):
        parts += [f"{name} {usage[name]}"] if usage[name] else []
    for name, label in (("faults", "failed requests"), ("rejected_answers", "rejected answers")):
        kinds = ", ".join(f"{kind} {n}" for kind, n in usage[name].items())
        parts += [f"{label}: {kinds}"] if kinds else []
    return "; ".join(parts)


def _short(number: float) -> str:
    """A count for a narrow place: 950, 12k, 3.4M."""
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1000:.0f}k" if number < 1_000_000 else f"{number / 1_000_000:.1f}M"
