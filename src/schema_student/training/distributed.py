"""Share values, gradients and files among the processes of one run: local workers on a CPU, or torchrun's.

Each function does nothing further where the run is one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from schema_student.core.processes import is_first_process, process_count, process_index
from schema_student.training import local_workers


def broadcast(value: Any) -> Any:
    """Give every process the first process's value."""
    if process_count() == 1 or local_workers.idle:
        return value
    PartialState(cpu=not torch.cuda.is_available())
    return broadcast_object_list([value])[0]


def main_process_first(action: Callable[[], Any]) -> None:
    """Run an action in the first process; the others wait until it is done."""
    if is_first_process():
        action()
    broadcast(None)


def wait_for_everyone() -> None:
    """Wait until all processes are here."""
    if process_count() > 1:
        PartialState().wait_for_everyone()


def gather(values: list[Any]) -> list[Any]:
    """Give every process the values of all, those of the first process first."""
    return list(gather_object(values)) if process_count() > 1 else values


def gather_micro_batches(values: list[Any]) -> list[Any]:
    """Give every process what all have of each of their micro-batches, in the order of the plan of batches."""
    found, count, world = gather(values), len(values), process_count()
    return [found[rank * count + i] for i in range(count) for rank in range(world)]


def own_share(values: list[Any]) -> list[Any]:
    """Take this process's share of what is in the order of the plan of batches."""
    return values[process_index() :: process_count()]


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each process's gradients by their mean over all processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
