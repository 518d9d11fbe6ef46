"""Our server against llama.cpp's on requests that share a schema: requests and tokens a second, seconds of each.

    python benchmarks/serving.py --adapter outputs/student_runs/real/checkpoint-final --gguf model-F16.gguf
    python benchmarks/serving.py                                # ours alone, with the embedded student

Both get the same rendered prompts as user turns, greedy, at most 48 tokens of an answer, over OpenAI's API by the same
client; llama.cpp keeps its prompt cache. They are measured in turns on the same cores, the other one stopped meanwhile
(SIGSTOP: llama.cpp's idle threads spin); a ratio is the median of the ratios of the turns.
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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

MAX_TOKENS, DAY = 48, "2026-01-31"
LLAMACPP = """
import sys, time
from pathlib import Path
from schema_student.teacher.llamacpp import serve_gguf
with serve_gguf(Path(sys.argv[1]), slots=int(sys.argv[2]), context=1024) as server:
    print("is served at", server.address, flush=True)
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

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def read_prompts(count: int, rendering: str) -> list[str]:
    """Render requests of BFCL, all to the first one's schema."""
    from schema_student.schema.prompts import render_prompt

    lines = (ROOT / "examples" / "bfcl" / "simple.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    queries = [row["query"] for row in rows if len(row["query"]) < 200][:count]
    return [render_prompt(rows[0]["schema"], query, DAY, rendering) for query in queries]


async def measure(server: Server, prompts: Sequence[str], in_flight: int) -> dict[str, float]:
    """Ask all prompts, so many at once."""
    waiting, seconds, tokens = iter(prompts), [], []

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
        ratios = [row["requests/s"] / other["requests/s"] for row, other in zip(rows, found["ours"], strict=True)]
        print(f"{in_flight:3d} in flight  {name:10}  {shown}  of ours {statistics.median(ratios):.2f}", flush=True)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="")
    parser.add_argument("--base-model", default="")
    parser.add_argument("--gguf", default="")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--in-flight", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rendering", default="compact")
    given = parser.parse_args()
    named = [*(("--adapter", given.adapter) if given.adapter else ()), "--base-model", given.base_model or "embedded"]
    named = named[:2] if given.adapter and not given.base_model else named
    slots = str(max(given.in_flight))
    own = ["-m", "schema_student", "serve", "--port", "0", "--eval-batch-size", slots, *named]
    servers = {"ours": Server(own)}
    servers["ours"].process.send_signal(signal.SIGSTOP)
    try:
        if given.gguf:
            servers["llama.cpp"] = Server(["-c", LLAMACPP, given.gguf, slots])
            servers["llama.cpp"].process.send_signal(signal.SIGSTOP)
        prompts = read_prompts(given.requests, given.rendering)
        for server in servers.values():
            with server.running():
                asyncio.run(measure(server, prompts[:2], 1))
        for in_flight in given.in_flight:
            compare(servers, prompts, in_flight, given.turns)
    finally:
        for server in servers.values():
            server.close()


if __name__ == "__main__":
    main()
