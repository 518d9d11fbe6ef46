"""Log messages: on the terminal of a program, or wherever a notebook, a menu or a server redirects them.

log.info("done already: d_03_dataset.jsonl")
log_to_terminal()       # a program calls it where it starts; a library never does
log_event("progress", "400 rows", done=40, total=400)    # for the folder of a run, and no terminal
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from schema_student.core.cleaning import for_terminal

log = logging.getLogger("schema_student")


class TerminalHandler(logging.Handler):
    """Writes bare messages: warnings and errors to standard error, all else to standard output.

    Whatever a message repeats of a server, a file or a model, nothing in it steers the terminal.
    """

    least = logging.WARNING  # of what goes to standard error

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= self.least else sys.stdout
        print(for_terminal(self.format(record)), file=stream, flush=True)


def log_to_terminal() -> None:
    """Let the logger speak on the terminal; a second call changes nothing."""
    if not log.isEnabledFor(logging.INFO):  # where a run's folder takes more, it goes on to
        log.setLevel(logging.INFO)
    log.propagate = False  # a library that has given the root logger a handler, as Unsloth has, would say all twice
    if not any(isinstance(handler, TerminalHandler) for handler in log.handlers):
        log.addHandler(TerminalHandler(logging.INFO))


def log_event(event: str, message: str, **facts: Any) -> None:
    """Log what happened for programs that watch a run: a debug message with facts, numbers or text, beside it."""
    log.debug(message, extra={"event": event, "facts": facts})


@contextmanager
def messages_beside_data() -> Iterator[None]:
    """Write all messages to standard error, while standard output holds a program's data."""
    TerminalHandler.least = logging.DEBUG
    try:
        yield
    finally:
        TerminalHandler.least = logging.WARNING
