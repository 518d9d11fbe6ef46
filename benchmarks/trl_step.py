"""One SFT step of a real student on a real corpus: prompt trees against trl's SFTTrainer, on the same batch.

    python benchmarks/trl_step.py --base-model gemma --corpus outputs/data/real/d_04_training_corpus.jsonl
    python benchmarks/trl_step.py --base-model embedded --corpus d_04_training_corpus.jsonl --turns 1    # a quick look

Each measurement is a fresh process that fine-tunes as `train --trainer own` or `--trainer trl` does, on the same rows
in the same order, without validation; timed is the last of --steps steps, the ones before it warm memory up. trl pads
its batch, and recomputes no activations (`gradient_checkpointing` off, which is faster than its default). The ways
take turns; a ratio is the median of the turns' ratios. The processor's seconds stand beside those of the clock: other
work on the machine lengthens these alone. Exits with 1 where the losses of the timed step differ by more than
--tolerance.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from prompt_trees import machine_facts

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
WAYS = {"ours": "own", "trl": "trl"}  # and what --trainer calls each
NEVER = 10**9  # steps between two validations
MEASURED = ("seconds", "processor_seconds", "peak_gib")


def fine_tune(flags: argparse.Namespace, trainer: str) -> dict[str, Any]:
    """Fine-tune for some steps in this process; returns the last one's seconds, its loss, and the peak of memory."""
    from schema_student.core.records import CorpusRow, read_rows, write_rows
    from schema_student.core.settings import default_settings
    from schema_student.student.choice import resolve_student
    from schema_student.training import fine_tuning
    from schema_student.training.metrics_log import MetricsLog

    ends: list[tuple[float, float, dict[str, Any]]] = []
    changes = {"base_model": flags.base_model, "dtype": flags.dtype, "trainer": trainer, "sft_max_steps": flags.steps}
    changes |= {"sft_batch_size": flags.batch, "eval_every": NEVER, "save_every": NEVER}
    settings = resolve_student(default_settings(**changes))[1]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_rows(corpus, [row for row in read_rows(flags.corpus, CorpusRow) if row.split == "train"])

        def note(_: Any, row: dict[str, Any]) -> None:
            if "loss" in row:
                ends.append((time.perf_counter(), time.process_time(), row))

        with patch.object(MetricsLog, "write", note):
            fine_tuning.fine_tune(settings, corpus, Path(folder) / "run", dataset=None)
    (clock, processor, _), (clock_after, processor_after, row) = ends[-2:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"seconds": clock_after - clock, "processor_seconds": processor_after - processor, "peak_gib": peak}
    return found | {"loss": row["loss"], "grad_norm": row["grad_norm"]}


def start_worker(argv: Sequence[str], way: str) -> dict[str, Any]:
    """Measure one way in a fresh process; raises RuntimeError where that fails."""
    command = [sys.executable, str(Path(__file__).resolve()), *argv, "--worker", WAYS[way]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Take medians of each way, the median ratios of the turns, and the greatest relative difference of the losses."""
    sides = {way: [row for row in rows if row["way"] == way] for way in WAYS}
    turns = list(zip(sides["ours"], sides["trl"], strict=True))
    found: dict[str, Any] = {"turns": len(turns)}
    for way, side in sides.items():
        found |= {f"{way}_{name}": statistics.median(row[name] for row in side) for name in MEASURED}
    for name in MEASURED[:2]:
        ratios = [trl[name] / ours[name] for ours, trl in turns]
        found[f"{name}_ratio"] = statistics.median(ratios), min(ratios), max(ratios)
    found["loss_difference"] = max(abs(ours["loss"] / trl["loss"] - 1) for ours, trl in turns)
    return found


def print_summary(found: dict[str, Any]) -> None:
    """Print a table in Markdown."""
    print("| way | turns | s a step | processor s | peak GiB |\n|---|---|---|---|---|")
    for way in WAYS:
        cells = [f"{found[f'{way}_{name}']:.2f}" for name in MEASURED]
        print(f"| {way} | {found['turns']} | {' | '.join(cells)} |")
    for name in MEASURED[:2]:
        middle, least, most = found[f"{name}_ratio"]
        print(f"trl's {name.replace('_', ' ')} over ours: {middle:.2f} ({least:.2f} to {most:.2f})")
    print(f"losses differ by {found['loss_difference']:.1e}")


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", default="gemma", help="as of the pipeline (%(default)s)")
    parser.add_argument("--corpus", type=Path, required=True, help="a d_04_training_corpus.jsonl")
    parser.add_argument("--dtype", default="auto", help="as of the pipeline")
    parser.add_argument("--batch", type=int, default=8, help="rows of a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="of which the last is timed (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each way (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=1e-2, help="of the loss, relative (%(default)s)")
    parser.add_argument("--json", type=Path, help="write raw results there")
    parser.add_argument("--worker", choices=WAYS.values(), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Measure in turns and print the table; 1 where the ways did not compute the same."""
    flags = read_flags(argv)
    if flags.worker:
        print(json.dumps(fine_tune(flags, flags.worker)))
        return 0
    machine, rows = machine_facts(0), []
    for turn in range(flags.turns):
        for way in WAYS if turn % 2 == 0 else reversed(WAYS):
            rows.append({"turn": turn, "way": way, **start_worker(argv, way)})
            print(f"  turn {turn + 1} {way}: {rows[-1]['seconds']:.2f} s, loss {rows[-1]['loss']:.4f}", flush=True)
            if flags.json:
                flags.json.write_text(json.dumps({"machine": machine, "raw": rows}, indent=1) + "\n", encoding="utf-8")
    found = summarize(rows)
    print_summary(found)
    return int(found["loss_difference"] > flags.tolerance)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
