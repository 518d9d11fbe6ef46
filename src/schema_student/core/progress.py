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

from schema_student.core.log import log

EVERY = 30.0  # seconds between two lines
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}s, {remaining} left{postfix}"


class Progress(tqdm):
    """tqdm, which says a line every half minute where standard error is no terminal."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.says_lines = not sys.stderr.isatty()
        self.said = time.monotonic()
        if self.says_lines:
            options |= {"file": io.StringIO(), "bar_format": LINE, "mininterval": EVERY, "miniters": 1}
        super().__init__(*given, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the state: at a terminal as tqdm does, else as a line where it is time for one."""
        if not self.says_lines:
            super().display(msg, pos)
        elif time.monotonic() - self.said >= EVERY and self.n:
            self.said = time.monotonic()
            log.info(str(self))
