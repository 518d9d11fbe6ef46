"""Show progress: a bar at a terminal; in a log, where each of its states would be a line, a line now and then.

with Progress(total=400, desc="dataset", unit="row") as bar:
    bar.update()
"""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from tqdm import tqdm

from schema_student.core.log import log, log_event

EVERY = 30.0  # seconds between two lines
WATCHED_EVERY = 2.0  # seconds between two events for who watches the run
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}s, {remaining} left{postfix}"


class Progress(tqdm):
    """tqdm, which says a line every half minute where standard error is no terminal."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.says_lines = not sys.stderr.isatty()
        self.said = self.told = time.monotonic()
        if self.says_lines:
            options |= {"file": io.StringIO(), "bar_format": LINE, "mininterval": WATCHED_EVERY, "miniters": 1}
        super().__init__(*given, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the state: at a terminal as tqdm does, else as a line where it is time for one."""
        self._tell()
        if not self.says_lines:
            super().display(msg, pos)
        elif time.monotonic() - self.said >= EVERY and self.n:
            self.said = time.monotonic()
            log.info(str(self))

    def _tell(self) -> None:
        """Log an event with the state, now and then, for who watches the run."""
        if not self.n or time.monotonic() - self.told < WATCHED_EVERY:
            return
        self.told = time.monotonic()
        state = self.format_dict
        rate = state["rate"] or self.n / max(state["elapsed"], 1e-9)
        left = (self.total - self.n) / rate if self.total and rate else None
        facts = {"done": self.n, "total": self.total, "unit": self.unit, "per_second": rate, "seconds_left": left}
        log_event("progress", str(self), what=self.desc.strip(), **facts)
