"""A step of shards is that of the whole, and what a checkpoint keeps of it too; two processes are held in test_sft."""

import os
from copy import deepcopy

import pytest
import torch
from torch import distributed
from torch.nn import Linear, Sequential

from schema_student.training import local_workers, sharding


@pytest.mark.parametrize(
    ("asked", "count", "expected"),
    [("true", "2", True), ("TRUE", "3", True), ("true", "1", False), ("false", "2", False), ("", "2", False)],
)
def test_fsdp_is_what_accelerate_launch_tells_several_processes(monkeypatch, asked, count, expected):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", asked)
    monkeypatch.setenv("WORLD_SIZE", count)
    assert sharding.shards() is expected


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """This process joined with itself; a base would be read by all processes."""
    monkeypatch.setenv(local_workers.MEETING_FILE, str(tmp_path / "meeting"))
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    yield
    distributed.destroy_process_group()


def take_step(model, optimizer, inputs):
    for last in (False, True):
        if last:
            sharding.divide_gradients(model, True)
        sharding.apply_to_model(lambda model, x: model(x).square().sum(), model, inputs[int(last)]).backward()
    norm = float(sharding.average_and_clip(optimizer.param_groups[0]["params"], 1.0))
    optimizer.step()
    sharding.gather_weights(model)
    optimizer.zero_grad()
    return norm


def test_a_step_of_shards_goes_on_from_one_of_the_whole_and_moves_the_same(alone, monkeypatch):
    torch.manual_seed(1)
    whole, inputs = Sequential(Linear(4, 3), Linear(3, 2)), torch.randn(2, 5, 4)
    whole[0].requires_grad_(False)
    divided = deepcopy(whole)
    models, optimizers = (whole, divided), []
    for model in models:
        optimizers.append(torch.optim.AdamW(sharding.trained_weights(model), lr=0.1))
        take_step(model, optimizers[-1], inputs)
    assert sharding.shard(divided, optimizers[1]) == sharding.trained_weights(divided)
    monkeypatch.setattr(sharding, "shards", lambda: True)
    shards = sharding.shard(divided, optimizers[1])
    assert [type(shard).__name__ for shard in shards] == ["DTensor", "DTensor"]
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    norm, other = (take_step(*both, inputs) for both in zip(models, optimizers, strict=True))
    assert norm == other > 1
    named = zip(whole.named_parameters(), divided.named_parameters(), strict=True)
    assert all(a == b and type(y) is not type(shards[0]) and torch.equal(x, y) for (a, x), (b, y) in named)
    ours, theirs = (sharding.gather_state(optimizer.state_dict()) for optimizer in optimizers)
    assert ours["param_groups"] == theirs["param_groups"] and [*ours["state"]] == [*theirs["state"]] == [0, 1]
    for i in ours["state"]:
        assert all(torch.equal(ours["state"][i][name], theirs["state"][i][name]) for name in ("step", "exp_avg"))
        assert type(theirs["state"][i]["exp_avg"]) is torch.Tensor and theirs["state"][i]["step"] == 2
