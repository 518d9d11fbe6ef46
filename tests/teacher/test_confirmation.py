"""A model's digest is looked at once a minute a host; what was kept of another model is dropped."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from schema_student.teacher.budget import Budget, Limits
from schema_student.teacher.confirmation import ConfirmedAnswers
from schema_student.teacher.dispatch import Host
from schema_student.teacher.faults import DeadlineFault, SizeFault, TeacherError, TornFault


class Server:
    """Says a digest, or fails; counts how often it is asked."""

    host = "http://h"

    def __init__(self):
        self.digest, self.asked = "d1", 0

    def model_digest(self, model):
        self.asked += 1
        if self.digest == "":
            raise TornFault("http://h: torn")
        return f"{self.digest} of {model}"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def kept():
    """Keys in the cache, in their order; who keeps them; a host."""
    cache, host = {}, Host(Server())
    store = SimpleNamespace(
        put=lambda key, role, model, answer: cache.__setitem__(key, (role, model, answer)),
        forget=lambda keys: [cache.pop(key) for key in keys],
    )
    return cache, ConfirmedAnswers("m", "d1 of m", [host], store), host


def test_a_digest_is_looked_at_again_after_a_minute(clock, kept):
    cache, answers, host = kept
    answers.confirm(host)
    answers.keep("k1", "judge", {"value": 1}, host)
    for now, asked in ((159.9, 1), (160.0, 2), (219.9, 2), (220.0, 3)):
        clock[0] = now
        answers.confirm(host)
        assert host.server.asked == asked
    assert cache == {"k1": ("judge", "m", {"value": 1})} and host.unconfirmed == []


def test_of_a_model_that_was_changed_nothing_since_the_last_look_is_kept_and_nothing_from_then_on(clock, kept):
    cache, answers, host = kept
    answers.keep("k1", "judge", {"value": 1}, host)
    answers.confirm(host)
    answers.keep("k2", "judge", {"value": 2}, host)
    host.server.digest, clock[0] = "d2", 160.0
    said = r"^m at http://h was changed while it was asked: its last answers are dropped; run .* --overwrite$"
    with pytest.raises(TeacherError, match=said):
        answers.confirm(host)
    answers.keep("k3", "judge", {"value": 3}, host)
    assert list(cache) == ["k1"] and host.unconfirmed == []


def test_a_look_that_fails_counts_as_none(clock, kept):
    cache, answers, host = kept
    answers.keep("k1", "judge", {"value": 1}, host)
    host.server.digest = ""
    for asked in (1, 2):
        with pytest.raises(TornFault):
            answers.confirm(host)
        assert (host.server.asked, host.unconfirmed, host.checked_at) == (asked, ["k1"], float("-inf"))
    answers.confirm_all()  # it has gone; what it said is kept
    assert host.server.asked == 3 and list(cache) == ["k1"]


def test_at_the_end_a_host_is_looked_at_again_where_it_answered_since(clock, kept):
    cache, answers, host = kept
    answers.confirm(host)
    answers.confirm_all()
    assert host.server.asked == 1
    answers.keep("k1", "judge", {"value": 1}, host)
    host.server.digest = "d2"
    with pytest.raises(TeacherError, match="was changed"):
        answers.confirm_all()
    assert cache == {} and host.server.asked == 2


def test_a_budget_counts_seconds_and_bytes_from_its_beginning(clock):
    budget = Budget("http://h", Limits(silence=2.0, deadline=10.0, max_bytes=5))
    clock[0] = 107.0
    assert (budget.seconds_left(), budget.seconds_left(2.0), budget.seconds_left(4.0)) == (3.0, 2.0, 3.0)
    budget.spend_bytes(3)
    budget.spend_bytes(2)
    with pytest.raises(SizeFault, match="http://h sent more than 5 bytes"):
        budget.spend_bytes(1)
    clock[0] = 110.0
    with pytest.raises(DeadlineFault, match="http://h had no whole answer after 10 s"):
        budget.seconds_left()
