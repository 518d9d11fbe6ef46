"""Our server against llama.cpp's on requests that share a schema: requests and tokens a second, seconds of each.

    python benchmarks/serving.py                                     # the embedded student's weights
    python benchmarks/serving.py --base-model models/gemma --dtype bfloat16

Both serve the same base, ours as it is, llama.cpp as a GGUF file (F16). llama.cpp has no name for how the embedded
student's tokenizer cuts texts: here it cuts them as GPT-2 does, for both. Both get the same rendered prompts as user
turns, greedy, at most 48 tokens of an answer, over OpenAI's API by the same client; llama.cpp keeps its prompt cache.
They are measured in turns, the other one stopped meanwhile (SIGSTOP: llama.cpp's idle threads spin); a ratio is the
median of the ratios of the turns. "cpu" is the seconds that a server computed for a request: where other programs
share the cores, it says more than the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

MAX_TOKENS, DAY = 48, "2026-01-31"
LLAMACPP = """
import sys, time
from pathlib import Path
from schema_student.teacher.llamacpp import start_server
slots = int(sys.argv[2])
server = start_server(Path(sys.argv[1]), 0, slots, 1024 * slots, int(sys.argv[3]))
print("is served at", server.listening_address, flush=True)
time.sleep(1e6)
"""


class Server:
    """A server in a process of its own, stopped while the other one is measured."""

    def __init__(self, words: Sequence[str]) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        }
        self.process = subprocess.Popen(
            [sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout
        line = next((line for line in self.process.stdout if "is served at" in line), "")
        if not line:
            raise SystemExit(f"no server: {' '.join(words[:4])} ended with {self.process.wait()}")
        self.address = line.split("is served at ")[1].split()[0]
        self.model = httpx.get(f"{self.address}/v1/models", timeout=60).json()["data"][0]["id"]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run."""
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def cpu_seconds(self) -> float:
        """Say how long it has computed."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def make_base(folder: Path, base: str) -> Path:
    """Write a base and its GGUF file into a folder; the embedded student with a tokenizer that llama.cpp has too."""
    from tokenizers import pre_tokenizers

    from schema_student.deploy.gguf_file import write_gguf
    from schema_student.student.loading import Student

    student = Student.load(base, dtype="float32")
    if base == "embedded":
        cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        student.tokenizer.backend_tokenizer.pre_tokenizer = cut
        student.model.save_pretrained(folder)
        student.tokenizer.save_pretrained(folder)
    write_gguf(student, folder / "base.gguf", "F16", "base", "unknown")
    return folder if base == "embedded" else Path(base)


def read_prompts(count: int) -> list[str]:
    """Render requests of BFCL, all to the first one's schema."""
    from schema_student.schema.prompts import render_prompt

    lines = (ROOT / "examples" / "bfcl" / "simple.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    queries = [row["query"] for row in rows if len(row["query"]) < 200][:count]
    return [render_prompt(rows[0]["schema"], query, DAY) for query in queries]


async def measure(server: Server, prompts: Sequence[str], in_flight: int) -> dict[str, float]:
    """Ask all prompts, so many at once."""
    waiting, seconds, tokens, cpu = iter(prompts), [], [], server.cpu_seconds()

    async def client(http: httpx.AsyncClient) -> None:
        for prompt in waiting:
            body: dict[str, Any] = {"model": server.model, "messages": [{"role": "user", "content": prompt}]}
            body |= {"temperature": 0, "max_tokens": MAX_TOKENS}
            started = time.perf_counter()
            found = (await http.post("/v1/chat/completions", json=body)).json()
            seconds.append(time.perf_counter() - started)
            tokens.append(found["usage"]["completion_tokens"])

    async with httpx.AsyncClient(base_url=server.address, timeout=600, trust_env=False, verify=False) as http:
        started = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(in_flight)))
        took = time.perf_counter() - started
    ordered = sorted(seconds)
    row = {"requests/s": len(prompts) / took, "tokens/s": sum(tokens) / took, "tokens": sum(tokens)}
    row["cpu"] = (server.cpu_seconds() - cpu) / len(prompts)
    return {**row, "p50": ordered[len(ordered) // 2], "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]}


def compare(servers: dict[str, Server], prompts: list[str], in_flight: int, turns: int) -> None:
    """Measure all servers in turns and print a line for each."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for turn in range(turns):
        for name in sorted(servers, reverse=bool(turn % 2)):
            with servers[name].running():
                found[name].append(asyncio.run(measure(servers[name], prompts, in_flight)))
    for name, rows in found.items():
        middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        shown = "  ".join(f"{key} {value:.2f}" for key, value in middle.items())
        pairs = list(zip(found["ours"], rows, strict=True))
        clock = statistics.median(ours["requests/s"] / row["requests/s"] for ours, row in pairs)
        cpu = statistics.median(row["cpu"] / ours["cpu"] for ours, row in pairs)
        ratios = f"ours is {clock:.2f} times as fast, by cpu {cpu:.2f}"
        print(f"{in_flight:3d} in flight  {name:10}  {shown}  {ratios}", flush=True)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", default="embedded")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--requests", type=int, default=64, help="most of one measurement; 4 for each in flight")
    parser.add_argument("--in-flight", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        run(given, Path(folder), stack)


def run(given: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
    """Start both servers, and measure each number of requests in flight."""
    base, slots = make_base(folder, given.base_model), str(max(given.in_flight))
    own = ["-m", "schema_student", "serve", "--port", "0", "--eval-batch-size", slots, "--output-dir", str(folder)]
    own += ["--base-model", str(base), "--dtype", given.dtype]
    servers = {}
    for name, words in {
        "ours": own,
        "llama.cpp": ["-c", LLAMACPP, str(folder / "base.gguf"), slots, str(given.threads)],
    }.items():
        servers[name] = Server(words)
        stack.callback(servers[name].close)
        servers[name].process.send_signal(signal.SIGSTOP)
    prompts = read_prompts(given.requests)
    for server in servers.values():
        with server.running():
            asyncio.run(measure(server, prompts[:2], 1))
    for in_flight in given.in_flight:
        compare(servers, prompts[: max(8, 4 * in_flight)], in_flight, given.turns)


if __name__ == "__main__":
    main()
