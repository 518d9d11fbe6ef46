"""Train and evaluate the students of a comparison, one after the other: what teachers.py and renderings.py share.

A cell is one student: {labels that say which, "seed"}. Its artifacts are a run of the pipeline in the output folder, so
that a cell that was stopped goes on; its figures are a row of results.jsonl, and a cell that has one is not run again.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from schema_student.core.jsonl import Row, append_row, read_json, read_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, read_rows
from schema_student.core.settings import Settings
from schema_student.core.statistics import wilson
from schema_student.data.corpus import write_corpus
from schema_student.evaluation.evaluate import evaluate_student
from schema_student.student.choice import resolve_student
from schema_student.student.loading import load_tokenizer
from schema_student.student.tokens import encode_prompt
from schema_student.training.sft import train_sft

MEASURES = {"schema_valid_rate": "valid", "semantic_pass_rate": "as asked"}


def run_cells(cells: Sequence[Row], run: Callable[[Row], Row], results: Path) -> list[Row]:
    """Run the cells that have no row in the file of results yet; returns the rows of all of them."""
    results.parent.mkdir(parents=True, exist_ok=True)
    rows = read_jsonl(results) if results.exists() else []
    for number, cell in enumerate(cells, start=1):
        if not any(row.items() >= cell.items() for row in rows):
            rows.append({**cell, **run(cell)})
            append_row(results, rows[-1])
            print(f"== {number}/{len(cells)} {cell}", flush=True)
    return [row for row in rows if any(row.items() >= cell.items() for cell in cells)]


def train_and_evaluate(settings: Settings) -> Row:
    """Make corpus, adapter and evaluation of a run whose d_03 is there; returns what they took and came to.

    Seconds are those of the clock and of the processor, which other work on the machine does not lengthen; where a
    stage was done already they are nearly none.
    """
    where = paths(settings)
    write_corpus(settings)
    corpus = [row for row in read_rows(where.corpus, CorpusRow) if row.split == "train"]
    tokenizer = load_tokenizer(resolve_student(settings)[0].base)
    found: Row = {"rows": len(corpus)}
    found["prompt_tokens"] = statistics.mean(len(encode_prompt(tokenizer, row.prompt)) for row in corpus)
    found |= _timed("sft", lambda: train_sft(settings))
    adapter = str(where.run_dir / "checkpoint-final")
    found |= _timed("evaluation", lambda: evaluate_student(settings, f"{where.run_dir.name}-sft", adapter))
    summary = read_json(where.eval_dir(f"{where.run_dir.name}-sft") / "evaluation_summary.json")
    return found | {"outcomes": {part: _counts(rates) for part, rates in summary["splits"].items()}}


def _timed(name: str, action: Callable[[], Any]) -> Row:
    clock, processor = time.perf_counter(), time.process_time()
    action()
    found = {"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processor}
    return {f"{name}_{kind}": round(value, 1) for kind, value in found.items()}


def _counts(rates: Row) -> dict[str, list[int]]:
    """{measure: [right ones, answers]} of a split."""
    return {measure: [rates[name]["k"], rates[name]["n"]] for name, measure in MEASURES.items()}


def describe(rows: Sequence[Row], measure: str, splits: Sequence[str]) -> str:
    """Write a measure over the seeds of one kind of cell: percent with its 95% interval (Wilson), or mean and range."""
    counts = [
        [sum(each) for each in zip(*(row["outcomes"][split][measure] for split in splits), strict=True)] for row in rows
    ]
    if len(counts) == 1:
        share = wilson(*counts[0])
        return f"{100 * share['rate']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"
    shares = [100 * right / answers for right, answers in counts]
    return f"{statistics.mean(shares):.1f} (seeds {min(shares):.1f} to {max(shares):.1f})"
