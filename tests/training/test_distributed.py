"""What processes exchange, seen from one of two: the other one is a fake that sends what this one does."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from schema_student.training import distributed as ours
from schema_student.training import local_workers
from schema_student.training.stage import join_ranks, run_first


@pytest.fixture
def second(monkeypatch):
    """This process is the second of two, and the first one sends the same; what was sent, in bytes."""
    sent = []

    def all_gather(places, mine):
        assert len(places) == 2
        sent.append(mine.numel())
        for place in places:
            place.copy_(mine)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "all_gather", all_gather)
    return sent


def test_values_come_of_all_processes_in_the_order_of_their_ranks_and_of_the_plan(second):
    assert ours.gather(["a", {"é": None}]) == ["a", {"é": None}] * 2
    assert second == [1, len('["a", {"\\u00e9": null}]')]
    assert ours.gather_micro_batches([[1], [2, 3]]) == [[1], [1], [2, 3], [2, 3]]
    assert ours.own_share([0, 1, 2, 3, 4]) == [1, 3]
    assert list(ours.share_chunks(lambda chunk: -chunk, [1, 2, 3])) == [-2, -2]  # of the last pair it has none
    assert ours.broadcast("what the first one says") is None  # the fake says what this one does: nothing
    ours.wait_for_everyone()
    ranks = join_ranks()
    assert (ranks.tell, ranks.share) == (ours.broadcast, ours.share_chunks)


def test_only_the_first_process_acts_and_the_others_wait_for_it(second, monkeypatch):
    acted = []
    run_first(lambda: acted.append("second"))
    assert acted == [] and len(second) == 2
    monkeypatch.setenv("RANK", "0")
    run_first(lambda: acted.append("first"))
    assert acted == ["first"] and len(second) == 4
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(local_workers, "idle", True)  # nobody else was started
    run_first(lambda: acted.append("idle"))
    assert acted == ["first", "idle"] and len(second) == 4 and ours.broadcast("said") == "said"


def test_alone_a_process_exchanges_nothing(monkeypatch):
    for name in ("all_gather", "all_reduce", "init_process_group"):
        monkeypatch.setattr(distributed, name, lambda *_: pytest.fail("it has nobody to talk to"))
    values, acted = ["a", "b", "c"], []
    assert ours.gather(values) is values and ours.own_share(values) == values and ours.broadcast("v") == "v"
    assert ours.gather_micro_batches(values) == values and list(ours.share_chunks(str.upper, values)) == ["A", "B", "C"]
    ours.wait_for_everyone()
    run_first(lambda: acted.append(1))
    ours.main_process_first(lambda: acted.append(2))
    assert acted == [1, 2]


def test_gradients_become_their_mean_over_the_processes_each_in_its_shape(monkeypatch):
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (3,), (1,))]
    weights[0].grad, weights[2].grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([7.0])
    monkeypatch.setattr(distributed, "all_reduce", lambda flat: flat.add_(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])))
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    ours.average_gradients(iter(weights))
    assert weights[0].grad.tolist() == [[1.0, 2.0], [3.0, 4.0]] and weights[2].grad.tolist() == [6.0]
    assert weights[1].grad is None


@pytest.fixture
def joined(monkeypatch):
    """What joining does to torch and for the end of the program; the process is the third of four."""
    calls = []
    monkeypatch.setattr(distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(distributed, "init_process_group", lambda kind, **place: calls.append((kind, place)))
    monkeypatch.setattr(distributed, "FileStore", lambda *given: given)
    monkeypatch.setattr(ours.atexit, "register", calls.append)
    monkeypatch.setattr(local_workers, "loopback_interface", lambda: "lo7")
    for name, value in {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for name in (local_workers.MEETING_FILE, "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return calls


PLACE = {"rank": 2, "world_size": 4}


@pytest.mark.parametrize(
    ("environment", "place", "interface"),
    [
        ({}, PLACE, None),
        ({"MASTER_ADDR": "127.0.0.1"}, PLACE, "lo7"),
        ({"MASTER_ADDR": "localhost"}, PLACE, "lo7"),
        ({"MASTER_ADDR": "::1"}, PLACE, "lo7"),
        ({"MASTER_ADDR": "localhost", "GLOO_SOCKET_IFNAME": "eth3"}, PLACE, "eth3"),
        ({"SCHEMA_STUDENT_MEETING_FILE": "/t/meeting"}, {**PLACE, "store": ("/t/meeting", 4)}, None),
    ],
)
def test_processes_meet_by_a_file_or_at_the_launcher_s_address(joined, monkeypatch, environment, place, interface):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ours.join_processes() == torch.device("cpu")
    assert joined == [("gloo", place), local_workers.leave_processes]
    assert ours.os.environ.get("GLOO_SOCKET_IFNAME") == interface
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    assert ours.join_processes() == torch.device("cpu") and len(joined) == 2  # once


@pytest.mark.parametrize(("rank", "gpu"), [("1", 1), (None, 0)])
def test_each_process_takes_a_gpu_of_its_own_where_there_are_some(joined, monkeypatch, rank, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", joined.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: joined[0])
    if rank is None:
        monkeypatch.delenv("LOCAL_RANK")
    assert ours.join_processes() == torch.device("cuda", gpu)
    assert joined == [gpu, ("nccl", PLACE), local_workers.leave_processes]


@pytest.mark.parametrize("there", [False, True])
def test_a_process_leaves_the_group_that_it_has_joined(monkeypatch, there):
    left = []
    monkeypatch.setattr(distributed, "is_initialized", lambda: there)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: left.append(1))
    local_workers.leave_processes()
    assert left == [1] * there
