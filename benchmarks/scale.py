"""What several workers gain, what a lost one costs, and how long a plan of a million rows takes on a hundred hosts.

    PYTHONPATH=src python benchmarks/scale.py                        # Ray: one worker, two, two of which one is killed
    PYTHONPATH=src python benchmarks/scale.py --simulate             # 100 hosts, simulated clock and answers
    PYTHONPATH=src python benchmarks/scale.py --simulate --rows 1000 --schemas 20 --hosts 4

Ray: 400 answers of 50 ms each in chunks of four, by two workers of a local cluster; medians of three. One is killed
after a quarter. Goals: two are at least 1.8 times as fast as one, and a killed worker costs less than 10%, and no row.

The simulation asks by the dispatcher of the teacher's client itself; what is simulated are the clock, the answers
(log-normal seconds) and the hosts: some answer at half the speed, each fails now and then and comes back, a few go for
good. Questions come as `generate` asks them: for so many schemas at a time first requests, then answers, then again
for what was rejected.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from schema_student.core.chunks import map_chunks
from schema_student.data.dataset import BATCH, ROUNDS
from schema_student.teacher.dispatch import Again, Dispatcher, Done, Host, pause_seconds

ANSWERS, SECONDS, CHUNK = 400, 0.05, 4
NOTICED = 2.0  # seconds after which a host that is gone is known to be


def main() -> None:
    """Print a table of Ray's workers, or what a plan takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", action="store_true")
    for name, default in vars(Plan()).items():
        flag, kind = f"--{name.replace('_', '-')}", type(default)
        parser.add_argument(flag, type=kind, default=default, help="simulation (default: %(default)s)")
    parser.add_argument("--answers", type=int, default=ANSWERS, help="of a measurement by Ray")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if options.simulate:
        found = simulate(Plan(**{name: getattr(options, name) for name in vars(Plan())}))
        print(json.dumps(found, indent=2))
    else:
        measure_workers(options.answers, options.runs)


# ---------------------------------------------------------------------------------------------------------------------
# Ray's workers


def answer(flag: str, last: int, chunk: Sequence[int]) -> list[int]:
    """Answer a chunk in its time; after `last`, where `flag` names a file that is not there, make it, and be lost."""
    for number in chunk:
        time.sleep(SECONDS)
        if flag and number >= last and not os.path.exists(flag):
            Path(flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [*chunk]


def measure_workers(answers: int, runs: int) -> None:
    """Print the seconds of one worker, of two, and of two of which one is killed at a quarter."""
    chunks = [range(begin, min(begin + CHUNK, answers)) for begin in range(0, answers, CHUNK)]
    list(map_chunks(partial(answer, "", 0), chunks[:8], "ray", 2))  # both workers are there
    kinds = {"one worker": (1, False), "two": (2, False), "two, one killed": (2, True)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for run, (name, (workers, kills)) in itertools.product(range(runs), kinds.items()):
            flag, started = f"{folder}/{run}" if kills else "", time.monotonic()
            work = partial(answer, flag, answers // 4)
            rows = [row for part in map_chunks(work, chunks, "ray", workers) for row in part]
            seconds[name].append(time.monotonic() - started)
            assert rows == [*range(answers)] and (not kills or os.path.exists(flag))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print("| workers | seconds | least | most |\n|---|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {medians[name]:.1f} | {min(each):.1f} | {max(each):.1f} |")
    faster, cost = medians["one worker"] / medians["two"], medians["two, one killed"] / medians["two"] - 1
    print(f"two are {faster:.2f} times as fast as one; a killed one costs {cost:.0%}; every row once, in order")


# ---------------------------------------------------------------------------------------------------------------------
# The simulation


@dataclass(frozen=True)
class Plan:
    """What is asked for, of which hosts; hours and seconds are those of the simulated clock."""

    rows: int = 1_000_000
    schemas: int = 1000
    at_once: int = 64  # schemas whose questions are asked together (--schemas-at-once)
    hosts: int = 100
    slots: int = 4
    seconds: float = 20.0  # of an answer, median
    spread: float = 0.5  # of its logarithm
    rejected: float = 0.15  # share of answers
    hours_up: float = 24.0  # mean, until a host fails
    minutes_down: float = 10.0
    lost: float = 0.03  # share of failures after which a host does not come back
    slow: float = 0.1  # share of hosts that take twice as long
    seed: int = 1


@dataclass
class Machine:
    """A simulated host: how slow it is, and when it is gone; `busy` are the seconds of its answers."""

    rng: random.Random
    plan: Plan
    slowness: float
    down: list[tuple[float, float]] = field(default_factory=list)  # from, to
    busy: float = 0.0

    def gone_between(self, begin: float, end: float) -> float | None:
        """Find when it is first gone in this time; None where it is there all the time."""
        while not self.down or self.down[-1][1] < end:
            fails = (self.down[-1][1] if self.down else 0.0) + self.rng.expovariate(1 / (3600 * self.plan.hours_up))
            comes_back = self.rng.random() >= self.plan.lost
            lasts = self.rng.expovariate(1 / (60 * self.plan.minutes_down)) if comes_back else math.inf
            self.down.append((fails, fails + lasts))
        return next((max(begin, since) for since, until in self.down if since < end and until > begin), None)


def simulate(plan: Plan) -> dict[str, Any]:
    """Simulate a plan: hours, questions, and what shares of the slots' time went where."""
    random.seed(plan.seed)  # the dispatcher's own pauses are drawn
    rng = random.Random(plan.seed)
    hosts = [Host(server=None) for _ in range(plan.hosts)]  # type: ignore[arg-type]  # nobody is asked
    machines = {
        id(host): Machine(random.Random(f"{plan.seed} {i}"), plan, 2.0 if rng.random() < plan.slow else 1.0)
        for i, host in enumerate(hosts)
    }
    clock, asked, again, kept = 0.0, 0, 0, 0
    a_schema = math.ceil(plan.rows / plan.schemas)
    for begin in range(0, plan.schemas, plan.at_once):
        missing = a_schema * min(plan.at_once, plan.schemas - begin)
        for _ in range(ROUNDS):
            for questions in (math.ceil(missing / BATCH), missing):
                clock, repeated = ask_all(questions, hosts, machines, plan, rng, clock)
                asked, again = asked + questions, again + repeated
            right = sum(rng.random() >= plan.rejected for _ in range(missing))
            kept, missing = kept + right, missing - right
            if not missing:
                break
    total = clock * plan.hosts * plan.slots
    busy = sum(machine.busy for machine in machines.values())
    down = sum(_seconds_down(machine, clock) for machine in machines.values()) * plan.slots
    return {
        "rows": kept,
        "questions": asked,
        "asked_again": again,
        "hours": round(clock / 3600, 2),
        "host_hours": round(clock / 3600 * plan.hosts, 1),
        "share_answering": round(busy / total, 4),
        "share_down": round(down / total, 4),
        "share_waiting": round(1 - (busy + down) / total, 4),
        "hosts_lost": sum(
            math.isinf(machine.down[-1][1]) and machine.down[-1][0] < clock for machine in machines.values()
        ),
    }


def _seconds_down(machine: Machine, clock: float) -> float:
    return sum(max(0.0, min(until, clock) - since) for since, until in machine.down if since < clock)


def ask_all(
    count: int, hosts: list[Host], machines: dict[int, Machine], plan: Plan, rng: random.Random, clock: float
) -> tuple[float, int]:
    """Ask so many questions from this time on: when all are answered, and how often one was asked again."""
    dispatcher, ends, again, open_ones = Dispatcher(range(count), hosts, plan.slots), [], 0, count
    numbers = itertools.count()
    while open_ones:
        while (taken := dispatcher.offer(clock)) is not None:
            i, _, host = taken
            machine = machines[id(host)]
            lasts = rng.lognormvariate(math.log(plan.seconds * machine.slowness), plan.spread)
            gone = machine.gone_between(clock, clock + lasts)
            end = clock + lasts if gone is None else gone + NOTICED
            heapq.heappush(ends, (end, next(numbers), i, host, gone is None, lasts))
        wait = dispatcher.seconds_to_wait(clock)
        if ends and (wait is None or ends[0][0] <= clock + wait):
            clock, _, i, host, answered, lasts = heapq.heappop(ends)
            machines[id(host)].busy += lasts if answered else 0.0
            open_ones, again = open_ones - answered, again + (not answered)
            outcome = Done(i) if answered else Again(pause_seconds(1), failed=True, gone=True)
            dispatcher.give_back(i, host, outcome, clock)
        else:
            assert wait is not None, "questions wait, and nobody answers"
            clock += wait
    return clock, again


if __name__ == "__main__":
    main()
