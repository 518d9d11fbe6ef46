"""Divide the optimizer's state and its gradients among processes by FSDP, PyTorch's fully_shard.

Prompt trees, the blockwise head and decoding read the weights of layers themselves, so that each process keeps whole
ones beside its shard of those that are trained (FSDP's SHARD_GRAD_OP; ZeRO's second stage, Rajbhandari et al. 2020,
arXiv 1910.02054). Checkpoints hold whole weights and whole states, as those of one process do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Module, Parameter
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from schema_student.core.processes import process_count
from schema_student.training.distributed import average_gradients, join_processes


def shards() -> bool:
    """Return whether accelerate launch was given FSDP for the processes of this run."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and process_count() > 1


def shard(model: Any, optimizer: Optimizer) -> list[Parameter]:
    """Divide the weights that an optimizer moves, and its state, if asked to; returns what it reads gradients of."""
    if not shards():
        return trained_weights(model)
    join_processes()
    whole = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    frozen = {weight for weight in model.parameters() if not weight.requires_grad}
    fully_shard(model, reshard_after_forward=False, ignored_params=frozen)
    model.set_reshard_after_backward(False)
    model.apply_as_forward = lambda function, *words: function(model, *words)
    register_fsdp_forward_method(model, "apply_as_forward")
    after = dict(model.named_parameters())
    parts = {whole[name]: after[name] for name in whole}
    for group in optimizer.param_groups:
        group["params"] = [parts[weight] for weight in group["params"]]
    for weight, part in parts.items():
        state = optimizer.state.pop(weight, {})
        optimizer.state[part] = {name: _divide_as(part, value) for name, value in state.items()}
    gather_weights(model)
    return [*parts.values()]


def _divide_as(part: Any, value: Tensor) -> Tensor:
    """Divide a tensor of the optimizer's as its weight is; a count of steps stays one number."""
    return distribute_tensor(value, part.device_mesh, part.placements) if value.shape == part.shape else value


def trained_weights(model: Module) -> list[Parameter]:
    """List the weights that are trained, as the model has them now: sharding puts others in their place."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def apply_to_model(function: Callable[..., Any], model: Any, *words: Any) -> Any:
    """Apply a function to a model; gradients of what it returns are divided as those of the model's forward pass."""
    as_forward = getattr(model, "apply_as_forward", None)
    return as_forward(function, *words) if as_forward else function(model, *words)


def gather_weights(model: Module) -> None:
    """Gather the weights that the optimizer has moved; nothing where they are not divided."""
    if isinstance(model, FSDPModule):
        model.reshard()
        model.unshard()
        divide_gradients(model, False)


def divide_gradients(model: Module, now: bool) -> None:
    """Let backward passes average and divide gradients, or only sum them in each process, as they do after a step."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)


def average_and_clip(parameters: list[Parameter], limit: float) -> Tensor:
    """Average gradients over processes, where backward passes have not, and scale them to a norm; returns theirs."""
    if process_count() > 1 and not shards():
        average_gradients(parameters)
    norm: Tensor = gather_state(clip_grad_norm_(parameters, limit))
    return norm


def gather_state(state: Any) -> Any:
    """Gather what a state dict, or a value of it, holds in shards; every process calls it, and has all of it."""
    if isinstance(state, dict):
        return {name: gather_state(value) for name, value in state.items()}
    return state.full_tensor() if isinstance(state, DTensor) else state
