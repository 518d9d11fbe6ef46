"""Count what is left out of a data set, by reason, with the first place of each; and what is not used of the rest.

tally.add("nothing answered", "mine.jsonl:7")
tally.lines()       # ["left out 1: nothing answered (first: mine.jsonl:7)"]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any


class Tally:
    """Counts of the rows left out, by reason, with the first of each; `malformed` of them could not be read at all."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}
        self.malformed = 0
        self.unused: Counter[str] = Counter()  # columns of rows that were taken, which nothing reads
        self.layouts: Counter[str] = Counter()
        self.sources: dict[str, dict[str, int]] = {}  # of several data sets that were mixed: the rows taken, by split

    def add(self, reason: str, where: str, malformed: bool = False) -> None:
        """Count a row that is left out."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)
        self.malformed += malformed

    def take(self, layout: str, unused: Iterable[str]) -> None:
        """Count a row that is read, by its layout, and its columns that are not used."""
        self.layouts[layout] += 1
        self.unused.update(unused)

    def merge(self, other: Tally) -> None:
        """Add what another tally counts."""
        for reason, n in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + n
        self.first = {**other.first, **self.first}
        self.malformed += other.malformed
        self.unused.update(other.unused)
        self.layouts.update(other.layouts)

    def lines(self) -> list[str]:
        """Write one line a reason, for people."""
        return [f"left out {n}: {reason} (first: {self.first[reason]})" for reason, n in self.counts.items()]

    def notes(self) -> list[str]:
        """Write which layouts the rows have, and a line for each column that is not used."""
        read = ", ".join(f"{n} as {layout}" for layout, n in self.layouts.most_common())
        columns = self.unused.most_common()
        return [f"read {read}"] * bool(read) + [f"column {name} is not used ({n} rows)" for name, n in columns]

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what an artifact's .meta.json and run_config.json keep of it."""
        found = {"left_out": self.counts, "layouts": dict(self.layouts), "unused_columns": dict(self.unused)}
        return found | ({"sources": self.sources} if self.sources else {})
