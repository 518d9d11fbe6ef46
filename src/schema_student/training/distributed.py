"""Share values, gradients and files among the processes of one run: local workers on a CPU, or torchrun's.

Tensors and JSON are sent, never pickles. Each function does nothing further where the run is one process.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import distributed

from schema_student.core.processes import is_first_process, process_count, process_index
from schema_student.training import local_workers


def join_processes() -> torch.device:
    """Join the processes of this run, where that is not done; returns the device on which they exchange tensors.

    Those that a stage has started meet by a file in its private folder: no port is opened for that. Under torchrun
    they meet at the launcher's address, and each takes a GPU of its own where there are GPUs.
    """
    on_gpu = torch.cuda.is_available()
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # transformers would read a base in the first process alone
    if not distributed.is_initialized():
        place: dict[str, Any] = {"rank": process_index(), "world_size": process_count()}
        if meeting := os.environ.get(local_workers.MEETING_FILE):
            place["store"] = distributed.FileStore(meeting, process_count())
        elif os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost", "::1"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", local_workers.loopback_interface())
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if on_gpu else "gloo", **place)
        atexit.register(local_workers.leave_processes)  # C++ aborts where a thread of gloo is left at the end
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def broadcast(value: Any) -> Any:
    """Give every process the first process's value, which JSON can hold."""
    if process_count() == 1 or local_workers.idle:
        return value
    return _exchange(value if is_first_process() else None)[0]


def main_process_first(action: Callable[[], Any]) -> None:
    """Run an action in the first process; the others wait until it is done."""
    if is_first_process():
        action()
    broadcast(None)


def wait_for_everyone() -> None:
    """Wait until all processes are here."""
    if process_count() > 1:
        _exchange(None)


def gather(values: list[Any]) -> list[Any]:
    """Give every process the values of all, those of the first process first; tuples in them become lists."""
    return [value for part in _exchange(values) for value in part] if process_count() > 1 else values


def _exchange(value: Any) -> list[Any]:
    """The values of all processes in their order, each sent as the bytes of its JSON."""
    device = join_processes()
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    sizes = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(process_count())]
    distributed.all_gather(sizes, torch.tensor([len(text)], device=device))
    longest = int(max(sizes))
    texts = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in sizes]
    distributed.all_gather(texts, torch.nn.functional.pad(text, (0, longest - len(text))))
    return [json.loads(each[: int(size)].cpu().numpy().tobytes()) for each, size in zip(texts, sizes, strict=True)]


def gather_micro_batches(values: list[Any]) -> list[Any]:
    """Give every process what all have of each of their micro-batches, in the order of the plan of batches."""
    found, count, world = gather(values), len(values), process_count()
    return [found[rank * count + i] for i in range(count) for rank in range(world)]


def own_share(values: list[Any]) -> list[Any]:
    """Take this process's share of what is in the order of the plan of batches."""
    return values[process_index() :: process_count()]


def share_chunks(function: Callable[[Any], Any], chunks: Sequence[Any]) -> Iterator[Any]:
    """Apply a function to chunks, each in one process, and give every process the results of all, in order."""
    for begin in range(0, len(chunks), process_count()):
        own = chunks[begin : begin + process_count()][process_index() :][:1]
        yield from gather([function(chunk) for chunk in own])


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each process's gradients by their mean over all processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
