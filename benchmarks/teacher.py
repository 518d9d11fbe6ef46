"""How well the teacher client keeps a server busy, and what it costs: slots, own time, cache, repeated run, faults.

    PYTHONPATH=src python benchmarks/teacher.py [--requests 2000] [--rows 10000] [--runs 5]
    PYTHONPATH=src python benchmarks/teacher.py --quick      # 300 requests, 500 rows, once: does it work at all

The server is an asyncio process of its own with 16 slots and 50 ms an answer; it is asked with as many requests in
flight as it has slots, and with four more, which wait there so that no slot does. Steady state is between the first
and the last tenth of a run's answers. Goals: 95% of slots busy; under 1 ms of the client's own (CPU) time a request;
20,000 cache reads a second; 10,000 rows generated again in under 15 s; with 20% of requests faulty (503, 500, closed
connection, at once) at least 90% of the throughput without. Medians of the runs; CPU time stands beside the clock's
where cores are shared.
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from schema_student.core.paths import paths
from schema_student.core.records import write_rows
from schema_student.core.settings import default_settings
from schema_student.data.dataset import write_dataset
from schema_student.data.domains import schema_row
from schema_student.teacher.cache import AnswerCache
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherFailure

ROOT = Path(__file__).resolve().parents[1]
SLOTS, SECONDS, FAULTY = 16, 0.05, 0.2
IN_FLIGHT = (1, 8, 32)
ANSWER = {"is_good": True, "reason": "fine"}


def main() -> None:
    """Print one row a measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    if options.quick:
        options.requests, options.rows, options.runs = 300, 500, 1
    print("| measure | goal | median | worst |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for more in (0, 4):
            spans = [
                measure_requests(options.requests, SLOTS + more, 0, Path(folder) / f"busy{more}-{i}")
                for i in range(options.runs)
            ]
            name = f"{SLOTS + more} in flight at {SLOTS} slots"
            row(f"slots busy, steady state, {name}", ">= 95%", [100 * span["busy"] for span in spans], "%", min)
            row(f"client's CPU time a request, {name}", "< 1 ms", [1000 * span["cpu"] for span in spans], " ms", max)
        reads = [measure_cache(Path(folder) / f"cache{i}.sqlite") for i in range(options.runs)]
        row("cache reads a second, clock", ">= 20,000", [clock for clock, _ in reads], "", min)
        row("cache reads a second, CPU", "", [cpu for _, cpu in reads], "", min)
        made, again = measure_generation(options.rows, options.runs, Path(folder) / "data")
        row(f"{made} rows generated again, clock", "< 15 s for 10,000", [clock for clock, _ in again], " s", max)
        row(f"{made} rows generated again, CPU", "", [cpu for _, cpu in again], " s", max)
        for in_flight in IN_FLIGHT:
            count = min(options.requests, 40 * in_flight + options.requests // 8)
            shares = []
            for i in range(options.runs):
                runs = [
                    measure_requests(count, in_flight, share, Path(folder) / f"faults{in_flight}{i}{share}")
                    for share in (0, FAULTY)
                ]
                shares.append(100 * runs[1]["rate"] / runs[0]["rate"])
                assert runs[1]["ended"] == count, "a question was lost"
            row(f"throughput with 20% faults, {in_flight} in flight", ">= 90%", shares, "%", min)


def row(name: str, goal: str, values: list[float], unit: str, worst: Callable[[list[float]], float]) -> None:
    """One line of the table."""
    digits = 0 if min(values) >= 1000 else 2
    print(f"| {name} | {goal} | {statistics.median(values):,.{digits}f}{unit} | {worst(values):,.{digits}f}{unit} |")


# ---------------------------------------------------------------------------------------------------------------------
# Requests


def measure_requests(count: int, in_flight: int, faulty: float, folder: Path) -> dict[str, float]:
    """Ask `count` questions: share of slots busy and answers a second in steady state, CPU time a request."""
    with model_server(faulty) as host:
        settings = default_settings(
            output_dir=str(folder), teacher_model="m:1", teacher_host=[host], teacher_concurrency=in_flight
        )
        with contextlib.redirect_stdout(io.StringIO()), open_teacher(settings) as teacher:
            asks = [("judge", {"schema": {}, "query": str(i), "answer": {}}) for i in range(count)]
            teacher.ask(*asks[0])
            started, cpu = time.monotonic(), time.process_time()
            answers = teacher.ask_many(asks[1:])
            cpu = time.process_time() - cpu
            spans = sorted(json.loads(teacher.chat.hosts[0].server._client._request_raw("GET", "/log").text)["spans"])
        ended = sum(answer == ANSWER or isinstance(answer, TeacherFailure) for answer in answers) + 1
    ends = sorted(end for begin, end in spans if begin >= started)
    first, last = ends[len(ends) // 10], ends[9 * len(ends) // 10]
    busy = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in spans) / (SLOTS * (last - first))
    rate = 0.8 * len(ends) / (last - first)
    return {"busy": busy, "rate": rate, "cpu": cpu / (count - 1), "ended": ended}


@contextmanager
def model_server(faulty: float) -> Iterator[str]:
    """The server below, as a process; gives its address."""
    command = [sys.executable, __file__, "--serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    print(faulty, file=process.stdin, flush=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def serve() -> None:
    """Ollama's routes on one asyncio loop: SLOTS answers at once, SECONDS each; a share of requests fails at once."""
    asyncio.run(ModelServer(float(input())).run())


class ModelServer:
    """A few lines of HTTP a request, so that the server takes little of the cores that it shares with the client."""

    def __init__(self, faulty: float) -> None:
        self.faulty, self.numbers = faulty, itertools.count(1)
        self.slots = asyncio.Semaphore(SLOTS)
        self.spans: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Serve until the process is ended."""
        server = await asyncio.start_server(self.talk, "127.0.0.1", 0, backlog=128)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The requests of one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(found[1])) if found else b""
                status, text = await self.answer(head.split(b" ", 2)[1].decode(), body)
                if not status:
                    break
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text))
        writer.close()

    async def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 closes the connection."""
        if path != "/api/chat":
            known = {"/api/version": {"version": "bench"}, "/log": {"spans": self.spans}}
            known |= {"/api/show": {"model_info": {}, "capabilities": []}}
            return 200, json.dumps(known.get(path, {"models": [{"model": "m:1", "digest": "d"}]})).encode()
        if b"Name a color" in body:
            return 200, said({"color": "red", "number": 1})
        number = next(self.numbers)
        # Spread evenly: every fifth request at a share of 0.2.
        if int(number * self.faulty) > int((number - 1) * self.faulty):
            return ((503, 500, 0)[int(number * self.faulty) % 3], b'{"error": "a fault"}')
        async with self.slots:
            begin = time.monotonic()
            await asyncio.sleep(SECONDS)
            self.spans.append((begin, time.monotonic()))
        return 200, said(ANSWER)


def said(content: object) -> bytes:
    """An answer of /api/chat."""
    message = {"role": "assistant", "content": json.dumps(content)}
    return json.dumps({"model": "m:1", "message": message, "done": True, "done_reason": "stop"}).encode()


# ---------------------------------------------------------------------------------------------------------------------
# Cache and repeated generation


def measure_cache(path: Path, answers: int = 2000, reads: int = 20_000) -> tuple[float, float]:
    """Reads a second of answers of some 300 characters, by the clock and by CPU time."""
    keys = [f"{i:064x}" for i in range(answers)]
    with closing(AnswerCache(path)) as cache:
        for key in keys:
            cache.put(key, "answer", "m", {"value": {"steps": [{"name": "word " * 50}]}, "seconds": 1.0})
        clock, cpu = time.monotonic(), time.process_time()
        for i in range(reads):
            assert cache.get(keys[i * 7919 % answers]) is not None
        return reads / (time.monotonic() - clock), reads / (time.process_time() - cpu)


def measure_generation(rows: int, runs: int, folder: Path) -> tuple[int, list[tuple[float, float]]]:
    """How many rows the embedded teacher's dataset has, and the seconds that each repetition of it takes."""
    lexicon = json.loads((ROOT / "data" / "lexicon.json").read_text(encoding="utf-8"))
    schemas = min(len(lexicon), max(8, rows // 200))
    settings = default_settings(
        output_dir=str(folder), teacher_model="embedded", train_queries=max(1, rows // schemas), eval_queries=20
    )
    write_rows(paths(settings).schemas, [schema_row(spec, 1) for spec in lexicon[:schemas]])
    times: list[tuple[float, float]] = []
    first = b""
    for i in range(runs + 1):
        clock, cpu = time.monotonic(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            made = write_dataset(settings.changed(overwrite=True)).read_bytes()
        if i:
            times.append((time.monotonic() - clock, time.process_time() - cpu))
        first = first or made
        assert made == first, "the repeated data set differs"
    return first.count(b"\n"), times


if __name__ == "__main__":
    main()
