"""Answers to real requests: seconds, forward passes and what they compute, by the number of rows written at once.

    python benchmarks/generation.py --base FOLDER --adapter CHECKPOINT --dtype bfloat16 --batch-sizes 16,64,256
    python benchmarks/generation.py --base embedded --limit 40            # a quick look

The requests are those of a d_03 (--dataset: its test splits, as evaluation reads them) or of
examples/bfcl/simple.jsonl, all of them, rendered as --rendering says. Decoding is greedy, of up to --max-new-tokens.
Beside the seconds of the clock it counts what does not depend on the machine's load: forward passes, and the tokens
that they compute (of prompts, a shared one once, of answers, guesses and empty slots). Answers at one batch size are
compared with those at the first: in bfloat16 a near tie may be decided otherwise.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    """Render the prompts."""
    from schema_student.core.records import DatasetRow
    from schema_student.evaluation.evaluate import read_requests
    from schema_student.schema.prompts import render_prompt, render_row_prompt

    if arguments.dataset:
        rows: list[DatasetRow] = read_requests(arguments.dataset, ["test_seen", "test_unseen"], arguments.limit)
        return [render_row_prompt(row, arguments.rendering) for row in rows]
    lines = (ROOT / "examples" / "bfcl" / "simple.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines[: arguments.limit or None]]
    return [render_prompt(row["schema"], row["query"], "2026-01-31", arguments.rendering) for row in found]


def measure(student: Any, prompts: list[str], max_new_tokens: int, batch_size: int) -> tuple[dict[str, Any], list[str]]:
    """Answer all prompts; returns what it took, and the answers."""
    from schema_student.student.generation import generate

    counts = {"passes": 0, "tokens_computed": 0}

    def count(module: Any, args: Any, output: Any) -> None:
        rows, tokens = args[0].shape
        counts["passes"] += 1
        counts["tokens_computed"] += rows * tokens

    hook = student.model.get_input_embeddings().register_forward_hook(count)
    started, processor = time.perf_counter(), time.process_time()
    answers = [each for (each,) in generate(student, prompts, max_new_tokens, batch_size)]
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    hook.remove()
    row = {"batch_size": batch_size, "requests": len(prompts), "seconds": round(seconds, 1)}
    row |= {"processor_seconds": round(processor, 1), **counts, "tokens": sum(each.tokens for each in answers)}
    row["unfinished"] = sum(not each.finished for each in answers)
    row["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return row, [each.text for each in answers]


def main() -> None:
    """Measure each batch size in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--adapter", default="")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--rendering", default="compact")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--max-new-tokens", type=int, default=320)
    parser.add_argument("--batch-sizes", default="64")
    arguments = parser.parse_args()
    from schema_student.core.settings import default_settings
    from schema_student.student.loading import load_student

    settings = default_settings(base_model=arguments.base, dtype=arguments.dtype)
    student = load_student(settings, adapter=arguments.adapter or None)
    prompts, first = read_prompts(arguments), None
    for size in map(int, arguments.batch_sizes.split(",")):
        row, answers = measure(student, prompts, arguments.max_new_tokens, size)
        first = first or answers
        print(
            json.dumps({**row, "other_answers": sum(a != b for a, b in zip(first, answers, strict=True))}), flush=True
        )


if __name__ == "__main__":
    main()
