"""How well the teacher client keeps a server busy, and what it costs: slots, own time, cache, repeated run, faults.

    PYTHONPATH=src python benchmarks/teacher.py [--requests 2000] [--rows 10000] [--runs 5]

The server is a process of its own with 16 slots and 50 ms an answer. Steady state is between the first and the last
tenth of a run's answers. Goals: 95% of slots busy; under 1 ms of the client's own (CPU) time a request; 20,000 cache
reads a second; 10,000 rows generated again in under 15 s; with 20% of requests faulty (503, 500, closed connection, at
once) at least 90% of the throughput without. Medians of the runs; CPU time stands beside the clock's where cores are
shared.
"""

import argparse
import contextlib
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from schema_student.answer_cache import AnswerCache
from schema_student.artifacts import paths, write_jsonl
from schema_student.config import default_settings
from schema_student.dataset import write_dataset
from schema_student.domains import schema_row
from schema_student.teacher import TeacherFailure, open_teacher

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
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    print("| measure | goal | median | worst |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        spans = [measure_requests(options.requests, SLOTS, 0, Path(folder) / f"busy{i}") for i in range(options.runs)]
        row("slots busy, steady state", ">= 95%", [100 * span["busy"] for span in spans], "%", min)
        row("client's CPU time a request", "< 1 ms", [1000 * span["cpu"] for span in spans], " ms", max)
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
            spans = sorted(json.loads(teacher._hosts[0].server._client._request_raw("GET", "/log").text)["spans"])
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
    """Ollama's routes: SLOTS answers at once, SECONDS each; a share of requests fails at once."""
    faulty = float(input())
    slots, numbers, spans = threading.Semaphore(SLOTS), itertools.count(1), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            known = {"/api/version": {"version": "bench"}, "/log": {"spans": spans}}
            self.reply(200, known.get(self.path, {"models": [{"model": "m:1", "digest": "d"}]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/show":
                return self.reply(200, {"model_info": {}, "capabilities": []})
            content = {"color": "red", "number": 1}
            if "Name a color" not in body["messages"][0]["content"]:
                number, content = next(numbers), ANSWER
                # Spread evenly: every fifth request at a share of 0.2.
                if int(number * faulty) > int((number - 1) * faulty):
                    return self.fail(int(number * faulty) % 3)
                with slots:
                    begin = time.monotonic()
                    time.sleep(SECONDS)
                    spans.append((begin, time.monotonic()))
            message = {"role": "assistant", "content": json.dumps(content)}
            self.reply(200, {"model": "m:1", "message": message, "done": True, "done_reason": "stop"})

        def fail(self, kind: int) -> None:
            if kind < 2:
                return self.reply((503, 500)[kind], {"error": "a fault"})
            self.close_connection = True

        def reply(self, status: int, value: object) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


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
    write_jsonl(paths(settings).schemas, [schema_row(spec, 1) for spec in lexicon[:schemas]])
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
