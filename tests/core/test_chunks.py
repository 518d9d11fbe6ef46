"""Work in chunks comes back in order, each once, whoever did it and whichever worker was lost."""

import json
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

    assert list(map_chunks(work, range(9), workers=workers)) == [*range(1, 10)]
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
    is_initialized = staticmethod(lambda: True)
    cluster_resources = staticmethod(lambda: {"CPU": 2.0})
    put = staticmethod(lambda value: value)
    get = staticmethod(lambda made: made.value)
    wait = staticmethod(lambda made: (made[-1:], made[:-1]))

    def __init__(self):
        self.cores = []

    def remote(self, function):
        return SimpleNamespace(options=lambda **how: SimpleNamespace(remote=partial(self.begin, function, how)))

    def begin(self, function, how, *words):
        self.cores.append(how["num_cpus"])
        return Made(function(*words))


@pytest.mark.parametrize(("count", "cores"), [(3, [1, 1, 1]), (5, [1, 1, 1, 0, 1, 1])])
def test_one_more_process_is_started_while_all_workers_are_busy_and_chunks_wait(monkeypatch, count, cores):
    ray = AtOnce()
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert list(map_chunks(str, range(count), "ray", 0)) == [*map(str, range(count))]
    assert ray.cores == cores


def test_a_lost_worker_costs_no_row_and_doubles_none(tmp_path):
    run_on_ray("map", tmp_path)
    told = json.loads((tmp_path / "found.json").read_text())
    assert told == {"found": [*range(0, 48, 2)], "said": "[0, 1, 2, 3] is no chunk", "killed": True}
