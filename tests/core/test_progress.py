"""Progress: a bar at a terminal, elsewhere a line now and then."""

import io
import logging
import sys

from schema_student.core import progress
from schema_student.core.progress import EVERY, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def count_to_400(monkeypatch, stderr, seconds_each):
    clock = [0.0]
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Progress, "_time", lambda self: clock[0], raising=False)
    with Progress(total=400, desc="dataset", unit="row") as bar:
        bar._time = bar.start_t = lambda: clock[0]
        bar.start_t = bar.last_print_t = 0.0
        for number in range(400):
            clock[0] += seconds_each
            bar.update()
            if number % 10 == 0:
                bar.set_postfix_str("3 tokens/s")


def test_without_a_terminal_a_line_is_said_every_half_minute(monkeypatch, caplog):
    stderr = io.StringIO()
    with caplog.at_level(logging.INFO, "schema_student"):
        count_to_400(monkeypatch, stderr, seconds_each=1.0)
    assert stderr.getvalue() == ""
    assert 400 / EVERY - 2 <= len(caplog.messages) <= 400 / EVERY
    assert caplog.messages[0].startswith("dataset: 30/400 rows, ") and caplog.messages[0].endswith("left, 3 tokens/s")


def test_what_is_over_soon_says_nothing(monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "schema_student"):
        count_to_400(monkeypatch, io.StringIO(), seconds_each=0.01)
    assert not caplog.messages


def test_at_a_terminal_there_is_a_bar(monkeypatch, caplog):
    stderr = Terminal()
    with caplog.at_level(logging.INFO, "schema_student"):
        count_to_400(monkeypatch, stderr, seconds_each=0.01)
    assert "\rdataset: 100%" in stderr.getvalue() and not caplog.messages
