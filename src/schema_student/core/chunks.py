"""Map a function over chunks of work, in their order: in this process, or by the workers of a Ray cluster.

A chunk is what one worker does at a time, and what is done again elsewhere where a worker is lost: no row is lost by
that, and none stands twice. Results come in the order of the chunks, each as soon as all before it are there, so that
who writes them can stop and go on after any of them.

    for rows in map_chunks(partial(answer, settings), chunks, "ray:10.0.0.1:6379"): ...

On Ray a function and its chunks are pickled, and files that it reads must lie at the same path for all workers.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

from schema_student.core.errors import UserError

C = TypeVar("C")
R = TypeVar("R")
HERE = "here"


@dataclass(frozen=True)
class Ranks:
    """How processes that were started together (torchrun) work on the same chunks, each on a share.

    `tell` gives all of them what the first one says; `share` maps a function, whose results JSON holds, over chunks,
    and gives all of them all results, in order.
    """

    tell: Callable[[Any], Any]
    share: Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


ALONE = Ranks(lambda value: value, map)


class Opening(Generic[C, R]):
    """A function that opens what it works with at its first chunk, in the process that applies it.

    `opened` is a context manager that gives the function, for example one that loads a student.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[Callable[[C], R]]]) -> None:
        self._opened = opened
        self._stack: ExitStack | None = None

    def __call__(self, chunk: C) -> R:
        if self._stack is None:
            self._stack = ExitStack()
            self._function = self._stack.enter_context(self._opened())
        return self._function(chunk)

    def close(self) -> None:
        """Close what was opened."""
        if self._stack:
            self._stack.close()


def map_chunks(function: Callable[[C], R], chunks: Sequence[C], on: str = HERE, workers: int = 1) -> Iterator[R]:
    """Apply a function to each chunk, `workers` at a time (0: on Ray as many as it has cores, here one); in order.

    `on` is "here", "ray" (a cluster of this machine, or the one that RAY_ADDRESS names) or "ray:ADDRESS". Raises the
    UserError of the function, and one where Ray is not installed or no cluster answers.
    """
    if on != HERE:
        yield from _map_on_ray(function, chunks, on.partition(":")[2], workers)
        return
    if workers <= 1:
        yield from map(function, chunks)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(function, chunks)
        except BaseException:  # KeyboardInterrupt too: those under way end, no other begins
            pool.shutdown(cancel_futures=True)
            raise


def _map_on_ray(function: Callable[[C], R], chunks: Sequence[C], address: str, workers: int) -> Iterator[R]:
    """Apply the function in tasks of Ray, which begins again elsewhere what a worker took with it when it was lost.

    What a lost worker costs is the start of another process, of seconds: a task that needs no core, begun while all are
    busy, has Ray start it before.
    """
    ray = _join_cluster(address)
    apply = ray.remote(_apply).options(num_cpus=1, max_retries=-1)
    stand_by = ray.remote(_stand_by).options(num_cpus=0)
    packed = ray.put(ray.cloudpickle.dumps(function))
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = deque(enumerate(chunks))
    under_way: dict[Any, int] = {}
    found: dict[int, bytes] = {}
    spare: Any = None
    for i in range(len(chunks)):
        while i not in found:
            while waiting and len(under_way) < count:
                number, chunk = waiting.popleft()
                under_way[apply.remote(packed, pickle.dumps(chunk))] = number
            if spare is None and 0 < len(waiting) < len(chunks) - count:  # all are there, and busy
                spare = stand_by.remote(packed)
            (ready,), _ = ray.wait([*under_way])
            found[under_way.pop(ready)] = ray.get(ready)
        error, result = pickle.loads(found.pop(i))
        if error:
            raise UserError(error)
        yield result


def _apply(packed: bytes, chunk: bytes) -> bytes:
    """Be a worker: what a person did wrong comes back as words, as an error of ours is not Ray's to try again."""
    try:
        return pickle.dumps(("", _unpack(packed)(pickle.loads(chunk))))
    except UserError as error:
        return pickle.dumps((str(error), None))


def _stand_by(packed: bytes) -> None:
    """Import what the function needs, in a process that waits from then on."""
    _unpack(packed)


@lru_cache(maxsize=1)
def _unpack(packed: bytes) -> Callable[[Any], Any]:
    """The function, the same object for all chunks of a worker: it may load a student once and go on with it."""
    return cast("Callable[[Any], Any]", pickle.loads(packed))


def _join_cluster(address: str) -> Any:
    """Join the cluster, or start one of this machine's cores; returns ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    # A cluster that is started here keeps a process that has nothing to do beside one a core: else Ray ends it.
    os.environ.setdefault("RAY_num_workers_soft_limit", str((os.cpu_count() or 1) + 1))
    try:
        import ray
    except ImportError:
        raise UserError("--on ray needs Ray: pip install 'schema-student[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"no Ray cluster answers at {address or 'this machine'}: {error}") from None
    return ray
