"""A plan of many hosts, simulated with the client's dispatcher: every row, the same for a seed, through failures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import scale

SMALL = scale.Plan(rows=800, schemas=8, hosts=10, rejected=0.2, at_once=4)


def test_a_simulation_is_the_same_for_a_seed_and_another_for_another():
    found = scale.simulate(SMALL)
    assert found == scale.simulate(SMALL) != scale.simulate(replace(SMALL, seed=2))
    assert found["rows"] >= 0.99 * 800 and found["hosts_lost"] == 0
    shares = [found[name] for name in ("share_answering", "share_down", "share_waiting")]
    assert abs(sum(shares) - 1) < 0.001 and min(shares) >= 0


def test_hosts_that_fail_cost_time_and_no_row():
    busy = replace(SMALL, hosts=3, at_once=8)
    calm = scale.simulate(replace(busy, hours_up=1e9))
    stormy = scale.simulate(replace(busy, hours_up=0.1, minutes_down=6, lost=0.0))
    assert calm["asked_again"] == 0 and stormy["asked_again"] > 0
    assert stormy["hours"] > calm["hours"] and stormy["share_down"] > 0.2
    assert stormy["rows"] >= 0.99 * 800


def test_hosts_that_go_for_good_are_counted_and_the_others_do_the_work():
    found = scale.simulate(replace(SMALL, hours_up=0.5, lost=0.5))
    assert 0 < found["hosts_lost"] < 10 and found["rows"] >= 0.99 * 800


def test_more_schemas_at_once_leave_hosts_less_idle():
    few = scale.simulate(replace(SMALL, at_once=1))
    assert scale.simulate(replace(SMALL, at_once=8))["hours"] < few["hours"]


def test_a_host_twice_as_slow_takes_twice_as_long():
    alone = replace(SMALL, rows=40, schemas=1, hosts=1, spread=0.0, hours_up=1e9, slow=0.0, rejected=0.0)
    quick, slow = scale.simulate(alone), scale.simulate(replace(alone, slow=1.0))
    turns = 2 + 10  # of 20 s: 8 questions for requests and 40 for answers, in four slots
    assert quick["hours"] == pytest.approx(turns * 20 / 3600, abs=0.006)
    assert slow["hours"] == pytest.approx(2 * turns * 20 / 3600, abs=0.006)
