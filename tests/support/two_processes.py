"""Run a program as torchrun would with two processes."""

from __future__ import annotations

import socket

from forked import Program

# What accelerate launch tells each process where its config is one of FSDP, with its default for loading.
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}


def run_in_two_processes(*words: str, **more: str) -> None:
    """Run `python WORDS` in two processes on this machine that know of each other; both must succeed.

    `more` is added to their environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place |= {"OMP_NUM_THREADS": "1", **more}
    ended = [each.end() for each in [Program(*words, **place, RANK=rank, LOCAL_RANK=rank) for rank in "01"]]
    assert [each.code for each in ended] == [0, 0], ended
