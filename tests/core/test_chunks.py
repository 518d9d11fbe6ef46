"""Work in chunks comes back in order, each once, whoever did it and whichever worker was lost."""

import json
import logging
import os
import pickle
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
from on_ray import run_on_ray

from schema_student.core.chunks import ALONE, Opening, map_chunks
from schema_student.core.errors import UserError


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_chunks(workers):
    late = threading.Event()

    def work(chunk):
        if workers > 1 and chunk == 0:
            late.wait(5)  # until a later chunk is done
        late.set()
        return chunk + 1

    assert list(map_chunks(work, range(9), workers=workers)) == list(map_chunks(work, range(9))) == [*range(1, 10)]
    assert list(ALONE.share(work, range(3))) == [1, 2, 3] and ALONE.tell("x") == "x"


def test_a_chunk_that_fails_stops_those_that_wait():
    done = []

    def work(chunk):
        if chunk == 1:
            raise UserError("no")
        done.append(chunk)

    with pytest.raises(UserError, match="no"):
        list(map_chunks(work, range(100), workers=2))
    assert len(done) < 100


def test_what_a_function_works_with_is_opened_at_its_first_chunk_and_closed_once():
    events = []

    @contextmanager
    def opened():
        events.append("open")
        yield lambda chunk: chunk * 2
        events.append("close")

    opening = Opening(opened)
    assert events == [] and list(map_chunks(opening, [1, 2])) == [2, 4]
    opening.close()
    assert events == ["open", "close"]
    Opening(opened).close()
    assert len(events) == 2


def test_ray_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'schema-student\[ray\]'"):
        list(map_chunks(str, [1], "ray"))


@dataclass(eq=False)
class Made:
    """A reference to a result."""

    value: object


class AtOnce:
    """What map_chunks asks of Ray, done at once; of several tasks the last begun is the first to be ready."""

    cloudpickle = pickle
    put = staticmethod(lambda value: value)
    get = staticmethod(lambda made: made.value)

    def __init__(self, cluster=None, has_joined=True):
        self.cluster, self.has_joined = {"CPU": 2.0} if cluster is None else cluster, has_joined
        self.cores, self.tries, self.joined, self.most = [], [], [], 0

    def is_initialized(self):
        return self.has_joined

    def init(self, **options):
        self.joined.append(options)
        if options["address"] == "nowhere":
            raise ConnectionError("refused")

    def cluster_resources(self):
        return self.cluster

    def wait(self, made):
        self.most = max(self.most, len(made))
        return made[-1:], made[:-1]

    def remote(self, function):
        return SimpleNamespace(options=lambda **how: SimpleNamespace(remote=partial(self.begin, function, how)))

    def begin(self, function, how, *words):
        self.cores.append(how["num_cpus"])
        self.tries.append(how.get("max_retries"))
        return Made(function(*words))


@pytest.mark.parametrize(("count", "cores"), [(3, [1, 1, 1]), (5, [1, 1, 1, 0, 1, 1])])
def test_one_more_process_is_started_while_all_workers_are_busy_and_chunks_wait(monkeypatch, count, cores):
    ray = AtOnce()
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert list(map_chunks(str, range(count), "ray", 0)) == [*map(str, range(count))]
    assert ray.cores == cores


def double_even(number):
    if number % 2:
        raise UserError(f"{number} is odd")
    return 2 * number


@pytest.mark.parametrize(
    ("workers", "cluster", "most"),
    [(3, {"CPU": 2.0}, 3), (1, {"CPU": 2.0}, 1), (0, {"CPU": 2.0}, 2), (0, {}, 1), (0, {"CPU": 0.5}, 1)],
)
def test_on_ray_results_come_in_order_from_as_many_tasks_as_workers(workers, cluster, most, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", ray := AtOnce(cluster, has_joined=False))
    monkeypatch.setattr(os, "environ", environment := {})
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert list(map_chunks(double_even, range(0, 14, 2), "ray", workers)) == [*range(0, 28, 4)]
    assert ray.most == most and ray.tries.count(-1) == 7 == len(ray.tries) - ray.tries.count(None)
    assert ray.joined == [{"address": None, "log_to_driver": False, "logging_level": logging.ERROR}]
    assert environment == {"RAY_USAGE_STATS_ENABLED": "0", "RAY_num_workers_soft_limit": "2"}
    with pytest.raises(UserError, match=r"^3 is odd$"):
        list(map_chunks(double_even, [2, 3], "ray:gpu:6379"))
    assert ray.joined[1]["address"] == "gpu:6379"


def test_a_cluster_that_was_joined_is_not_joined_again_and_one_that_does_not_answer_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", ray := AtOnce())
    assert list(map_chunks(double_even, [2], "ray:gpu")) == [4] and ray.joined == []
    monkeypatch.setitem(sys.modules, "ray", AtOnce(has_joined=False))
    with pytest.raises(UserError, match=r"^no Ray cluster answers at nowhere: refused$"):
        list(map_chunks(double_even, [2], "ray:nowhere"))


def test_a_lost_worker_costs_no_row_and_doubles_none(tmp_path):
    run_on_ray("map", tmp_path)
    told = json.loads((tmp_path / "found.json").read_text())
    assert told == {"found": [*range(0, 48, 2)], "said": "[0, 1, 2, 3] is no chunk", "killed": True}
