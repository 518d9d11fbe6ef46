"""How much faster the embedded run is because a shared schema is computed once: ./runAll.sh, with and without.

    ./runAll.sh --print-config                          # once: makes .venv, which both use
    python benchmarks/pipeline_speed.py [--runs 3] [--json runs.json]
    python benchmarks/pipeline_speed.py --table runs.json more.json    # the tables of finished runs again, as one

Each run is a whole ./runAll.sh in a copy of this checkout: as it is ("shared"), or with trees and shared keys and
values switched off in the copy's source ("separate"), as every row and every prompt is computed by trainers and
`generate` of other libraries. The ways take turns. A run takes some 7 minutes, or 11; the machine should be idle.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prompt_trees import machine_facts

ROOT = Path(__file__).resolve().parents[1]
# What is added to modules of the copy, which ask these functions whether they can share.
SEPARATE = {
    "prompt_tree.py": "def why_unsupported(model):\n    return 'switched off by the benchmark'\n",
    "key_values.py": "def cut_reading(prompts, most=0):\n    return 1\n",
}
WAYS = ("shared", "separate")
RATE = "semantic_match_target_rate"


def main() -> None:
    """Print the seconds of each stage and of the whole, and the students' rates; leave with 1 where rates differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each way (%(default)s)")
    parser.add_argument("--json", type=Path, help="write all raw results there, after each run")
    parser.add_argument("--flags", default="", help="flags of runAll.sh, as --flags='--sft-max-steps 2'")
    parser.add_argument("--table", type=Path, nargs="+", metavar="JSON", help="print tables of raw results, no more")
    options = parser.parse_args()
    results = read_turns(options.table) if options.table else measure(options)
    whole = [turn for turn in range(len(results)) if sum(result["turn"] == turn for result in results) == len(WAYS)]
    sides = [[r for turn in whole for r in results if (r["turn"], r["way"]) == (turn, way)] for way in WAYS]
    print_times(*sides)
    sys.exit(0 if print_rates(*sides) else 1)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All runs, the ways in turns; each is one row, written at once."""
    results: list[dict[str, Any]] = []
    facts = machine_facts(0)
    machine = {name: facts[name] for name in ("cpu", "cores", "commit", "torch")}
    for turn in range(options.runs):
        for way in WAYS if turn % 2 == 0 else reversed(WAYS):
            load = os.getloadavg()[0]
            row = {"turn": turn, "way": way, "machine": machine, "load": load}
            results.append(row | run_all(way, options.flags.split()))
            print(f"{way}, turn {turn + 1}: {sum(results[-1]['seconds'].values())} s", flush=True)
            if options.json:
                options.json.write_text("[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n", encoding="utf-8")
    return results


def read_turns(files: list[Path]) -> list[dict[str, Any]]:
    """Raw results of several files; the turns of each are counted on from those of the file before."""
    results: list[dict[str, Any]] = []
    for path in files:
        before = 1 + max((result["turn"] for result in results), default=-1)
        rows = json.loads(path.read_text(encoding="utf-8"))
        results += [{**row, "turn": before + row["turn"]} for row in rows]
    return results


def run_all(way: str, flags: list[str]) -> dict[str, Any]:
    """Seconds of each stage of one ./runAll.sh as it prints them, and the rates of its students."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in files.stdout.strip("\0").split("\0"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
        (copy / ".venv").symlink_to(ROOT / ".venv")
        for name, text in SEPARATE.items() if way == "separate" else ():
            with (copy / "src" / "schema_student" / name).open("a", encoding="utf-8") as module:
                module.write(f"\n\n{text}")
        done = subprocess.run(["./runAll.sh", *flags], cwd=copy, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"./runAll.sh failed, {way}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        summaries = sorted((copy / "outputs" / "student_runs" / "eval").glob("*/evaluation_summary.json"))
        return {
            "seconds": {name: int(text) for name, text in re.findall(r"^-- (\w+): (\d+) s", done.stdout, re.M)},
            "rates": {path.parent.name: json.loads(path.read_text())["overall"][RATE] for path in summaries},
        }


def print_times(shared: list[dict[str, Any]], separate: list[dict[str, Any]]) -> None:
    """Medians of each stage and of the whole; a ratio is the median of the ratios of the turns."""
    print(f"\n{len(shared)} runs of each way")
    print("| stage | shared, s | separate, s | ratio (least, most) |\n|---|---|---|---|")
    for stage in [*shared[0]["seconds"], "whole"]:
        times = [[sum(r["seconds"].values()) if stage == "whole" else r["seconds"][stage] for r in side]
                 for side in (shared, separate)]  # fmt: skip
        ratios = [b / max(a, 1) for a, b in zip(*times, strict=True)]
        medians = " | ".join(f"{statistics.median(side):.0f}" for side in times)
        print(f"| {stage} | {medians} | {statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f}) |")


def print_rates(shared: list[dict[str, Any]], separate: list[dict[str, Any]]) -> bool:
    """Rates as asked of all runs; whether those of the two ways lie within each other's 95% intervals."""
    print("\n| student | as asked, shared | separate |\n|---|---|---|")
    same = True
    for name in shared[0]["rates"]:
        sides = [[result["rates"][name] for result in side] for side in (shared, separate)]
        cells = [", ".join(f"{r['rate']:.1%} ({r['low']:.1%} to {r['high']:.1%})" for r in side) for side in sides]
        print(f"| {name} | {cells[0]} | {cells[1]} |")
        same &= all(a["low"] <= b["rate"] <= a["high"] for a in sides[0] for b in sides[1])
    return same


if __name__ == "__main__":
    main()
