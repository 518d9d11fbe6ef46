"""Disturb a whole small run at random moments, start it again, and compare: the same artifacts as undisturbed?

    PYTHONPATH=src python benchmarks/disturbed_runs.py kills --times 50 [--seed 0]
    PYTHONPATH=src python benchmarks/disturbed_runs.py full-disk --times 20 [--tmpfs]

Every stage from nothing to a report, with a base of random weights and the embedded teacher, each in a process forked
from this one. `kills` sends SIGKILL, SIGTERM and SIGINT in turn; `full-disk` lets no file grow from a moment on
(RLIMIT_FSIZE), or with --tmpfs, which needs root, leaves room for a part of what the stage writes. A moment is drawn
among the events of the undisturbed stage: files opened, renamed and removed, and rows appended; every second kill falls
at a drawn time instead (--events: none). Exit 1 at the first run that ends otherwise than the undisturbed one.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from pipeline import small
from tiny import save_tiny

from schema_student.cli.main import dispatch
from schema_student.core.artifacts import Artifact, is_finished
from schema_student.core.jsonl import read_json
from schema_student.core.processes import INTERRUPTED, run_script
from schema_student.core.times import META, read_timeless
from schema_student.core.verbs import STAGES
from schema_student.training.local_workers import import_ahead

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
NOT_COMPARED = ("runs/", "teacher_cache")  # when, how often and by whom it was made
SENTENCES = ("report.html", "report.md")  # which tell times in words
EVENTS_SAID = "\nevents: "
TOLD_IN_ONE_LINE = ("the disk is full", INTERRUPTED)


@dataclass(frozen=True)
class Stage:
    """A stage of the run, and what it took undisturbed: seconds, events, bytes that it left."""

    name: str
    seconds: float
    events: int
    bytes: int


@dataclass(frozen=True)
class Ended:
    """How a stage ended: exit code or minus its signal, what it said, its events."""

    code: int
    words: str
    events: int


class Disturbance(Exception):
    """Raised where a disturbed run does not end as the undisturbed one."""


# ---------------------------------------------------------------------------------------------------------------------
# One stage in a process of its own


def start(name: str, flags: list[str], moment: int = 0, act: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Fork a process that is a stage, and does `act` at its event number `moment`; its id, and a pipe of its words."""
    runner = str(os.getpid())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 2**20)  # all that a stage says, which is read at its end
    for stream in (1, 2):
        os.dup2(writing, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["SCHEMA_STUDENT_RUNNER"] = runner
    sys.dont_write_bytecode = True  # a module's bytecode that a full disk cuts short would fail whoever imports it next
    verb, *own = STAGES[name]
    counted, code = count_events(moment, act), 1
    try:
        run_script(lambda: dispatch([verb, *flags, *own]))
    except SystemExit as left:
        code = int(left.code or 0)
    except KeyboardInterrupt:  # before a script would be at work, or after it
        code = 128 + signal.SIGINT
        print(INTERRUPTED)
    finally:
        print(f"{EVENTS_SAID}{counted[0]}", flush=True)
        os._exit(code)


def count_events(moment: int, act: Callable[[], None]) -> list[int]:
    """Count the events of this process from now on; do `act` at the one of this number."""
    counted, writing = [0], os.O_WRONLY | os.O_RDWR
    append = Artifact.append

    def count() -> None:
        counted[0] += 1
        if counted[0] == moment:
            act()

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and (event != "open" or (isinstance(arguments[2], int) and arguments[2] & writing)):
            count()

    def append_and_count(artifact: Artifact, row: dict[str, object]) -> None:
        append(artifact, row)
        count()

    Artifact.append = append_and_count  # type: ignore[method-assign]
    sys.addaudithook(hear)
    return counted


def end(started: tuple[int, int]) -> Ended:
    """Wait for a process."""
    pid, reading = started
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb") as pipe:
        words, _, events = (pipe.read() or b"").decode(errors="replace").partition(EVENTS_SAID)
    return Ended(code, words, int(events or 0))


def run_to_its_end(name: str, flags: list[str]) -> tuple[float, int]:
    """Run a stage undisturbed; returns seconds and events."""
    begun = time.monotonic()
    ended = end(start(name, flags))
    if ended.code:
        raise Disturbance(f"{name} ended with {ended.code}: {ended.words[-2000:]}")
    return time.monotonic() - begun, ended.events


# ---------------------------------------------------------------------------------------------------------------------
# What is compared


def read_made(output: Path) -> dict[str, bytes]:
    """Read every artifact without its time fields."""
    files = (path for path in sorted(output.rglob("*")) if path.is_file() and not path.is_symlink())
    names = {path.relative_to(output).as_posix(): path for path in files}
    kept = {name: path for name, path in names.items() if not name.startswith(NOT_COMPARED)}
    made = {name: read_timeless(path) for name, path in kept.items() if path.name not in SENTENCES}
    return {name: _without_requests(data) if name.endswith(META) else data for name, data in made.items()}


def _without_requests(stamp: bytes) -> bytes:
    """Take out what the process that finished an artifact asked its teacher: the rest another one had asked."""
    facts = json.loads(stamp)
    facts.pop("teacher_usage", None)
    return json.dumps(facts).encode()


def compare(wanted: dict[str, bytes], made: dict[str, bytes]) -> None:
    """Raise Disturbance where a file is missing, too many, or another."""
    if strangers := wanted.keys() ^ made.keys():
        raise Disturbance(f"one run has {', '.join(sorted(strangers))}, and the other has not")
    for name, bytes_wanted in wanted.items():
        if bytes_wanted != made[name]:
            pairs = enumerate(zip(bytes_wanted, made[name], strict=False))
            at = next((place for place, (one, other) in pairs if one != other), 0)
            parts = [data[max(0, at - 200) : at + 200] for data in (bytes_wanted, made[name])]
            raise Disturbance(f"{name} has other bytes: {parts[0]!r} undisturbed, now {parts[1]!r}")


def check_whole(output: Path) -> None:
    """Raise Disturbance for a stamp of what is not whole, and for half a JSON file."""
    for path in output.rglob("*.json"):
        if ".partial" not in path.parts and not path.name.startswith("."):
            read_json(path)
    for meta in output.rglob(f"*{META}"):
        artifact = meta.with_name(meta.name.removesuffix(META))
        if artifact.exists() and not is_finished(artifact):
            raise Disturbance(f"{artifact} is stamped, and not whole")


# ---------------------------------------------------------------------------------------------------------------------
# Disturbed runs


def disturb_often(folder: Path, given: argparse.Namespace) -> str:
    """Disturb runs as often as is asked for; returns what came of it in a paragraph, raises Disturbance."""
    rng, output, base = random.Random(given.seed), folder / "outputs", folder / "base"
    if pid := os.fork():  # this process computes nothing: its forks would not outlive that
        os.waitpid(pid, 0)
    else:
        save_tiny(base)
        os._exit(0)
    flags = small(base, output)
    chosen = given.stages.split(",")
    names = list(STAGES)[: max(map(list(STAGES).index, chosen)) + 1]
    with mounted(output) if given.tmpfs else nullcontext():
        stages = [measure_stage(name, flags, output) for name in names]
        wanted, struck, runs = read_made(output), Counter[str](), 0
        while struck.total() < given.times:
            empty(output)
            runs += 1
            for stage in stages:
                for _ in range(min(given.in_a_row, given.times - struck.total()) if stage.name in chosen else 0):
                    if strike(stage, flags, output, rng, struck.total(), given):
                        struck[stage.name] += 1
                        print(f"{struck.total()} of {given.times}: {stage.name}", file=sys.stderr, flush=True)
                        check_whole(output)
                run_to_its_end(stage.name, flags)
            compare(wanted, read_made(output))
    where = ", ".join(f"{count} in {name}" for name, count in struck.items())
    return f"{struck.total()} {given.kind} in {runs} runs ({where}): all {len(wanted)} files as undisturbed"


def measure_stage(name: str, flags: list[str], output: Path) -> Stage:
    """Run a stage undisturbed, and measure it."""
    before = used(output)
    seconds, events = run_to_its_end(name, flags)
    return Stage(name, seconds, events, used(output) - before)


def used(folder: Path) -> int:
    """Count the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def empty(folder: Path) -> None:
    """Remove all that a folder holds."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def strike(
    stage: Stage, flags: list[str], output: Path, rng: random.Random, number: int, given: argparse.Namespace
) -> bool:
    """Disturb a stage at a random moment; returns whether that ended it."""
    moment, blow = rng.randint(1, stage.events), SIGNALS[number % len(SIGNALS)]
    if given.kind == "full-disk" and given.tmpfs:
        filler = output / "filler"
        fill(filler, leave=rng.randint(0, stage.bytes))
        ended = end(start(stage.name, flags))
        filler.unlink()
    elif given.kind == "full-disk":
        limit = (rng.choice((0, 100, 10_000)), resource.RLIM_INFINITY)  # bytes of a file
        ended = end(start(stage.name, flags, moment, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)))
    elif number % 2 or given.events:
        ended = end(start(stage.name, flags, moment, lambda: os.kill(os.getpid(), blow)))
    else:
        started = start(stage.name, flags)
        time.sleep(rng.uniform(0, stage.seconds))
        os.kill(started[0], blow)
        ended = end(started)
    return was_ended(stage, ended, (1,) if given.kind == "full-disk" else (-blow, 128 + blow))


def was_ended(stage: Stage, ended: Ended, codes: tuple[int, ...]) -> bool:
    """Whether a stage did not come to its end; raises Disturbance where it did not say why in one line."""
    if ended.code == 0:
        return False
    clear = ended.code < 0 or any(words in ended.words.rstrip().rpartition("\n")[2] for words in TOLD_IN_ONE_LINE)
    if ended.code not in codes or not clear or "Traceback" in ended.words:
        raise Disturbance(f"{stage.name} ended with {ended.code}: {ended.words[-2000:]}")
    return True


def fill(filler: Path, leave: int) -> None:
    """Fill a disk but for so many bytes."""
    size = max(0, shutil.disk_usage(filler.parent).free - leave)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))


class mounted:
    """A small disk in memory, at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(self.folder)], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


def main() -> None:
    """Disturb runs and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("kills", "full-disk"))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default=",".join(STAGES), help="those that are disturbed (default: all)")
    parser.add_argument("--in-a-row", type=int, default=3, help="times that a stage is, until it is let end")
    parser.add_argument("--events", action="store_true", help="kill at events only, none of which is a matter of time")
    parser.add_argument("--tmpfs", action="store_true", help="a disk of its own that is filled; needs root")
    given = parser.parse_args()
    import_ahead()
    with tempfile.TemporaryDirectory() as folder:
        try:
            print(disturb_often(Path(folder), given))
        except Disturbance as found:
            sys.exit(f"error: {found}")


if __name__ == "__main__":
    main()
