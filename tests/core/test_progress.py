"""Progress: a bar at a terminal, elsewhere a line now and then."""

import io
import logging
import sys

import pytest

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


def test_who_watches_a_run_is_told_every_two_seconds(monkeypatch, caplog):
    with caplog.at_level(logging.DEBUG, "schema_student"):
        count_to_400(monkeypatch, io.StringIO(), seconds_each=0.5)
    events = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert {record.event for record in events} == {"progress"} and len(events) == 100
    facts = {"what": "dataset", "total": 400, "unit": "row"}
    for record in (events[0], events[50]):
        done = record.facts["done"]
        timed = {"done": done, "per_second": pytest.approx(2.0), "seconds_left": pytest.approx((400 - done) / 2)}
        assert record.facts == facts | timed
    assert events[0].facts["done"] == 4 and events[0].message.startswith("dataset: 4/400 rows, ")


def test_where_nobody_knows_how_much_there_is_no_time_left_is_told(monkeypatch, caplog):
    monkeypatch.setattr(progress, "WATCHED_EVERY", 0.0)
    with caplog.at_level(logging.DEBUG, "schema_student"), Progress(desc="rows ", unit="row") as bar:
        bar.update()
        bar.refresh()
    facts = caplog.records[-1].facts
    assert (facts["what"], facts["done"], facts["total"], facts["seconds_left"]) == ("rows", 1, None, None)
    assert facts["per_second"] > 0
