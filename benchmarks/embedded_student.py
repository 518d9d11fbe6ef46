"""What the embedded student can do on schemas drawn as in its pretraining, from a seed that pretraining never used.

python benchmarks/embedded_student.py [--base models/embedded-student] [--requests 200]

First: greedy answers, the share that are JSON and the share that equal the truth, for the query DSL and plain objects.
Then, where the DSL's loss is: nats by the JSON key that a token stands under. Run it on the snapshots of a pretraining
to see what has been learned (the echo of the request comes first, then names of fields, then of operators).
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from schema_student.config import default_settings
from schema_student.generation import generate
from schema_student.pretraining import Words, draw_group
from schema_student.prompt_tree import forest_logps, grow, plant
from schema_student.student import Student, encode_completion, encode_prompt, load_student

SEED = 990_001
Group = list[tuple[str, str]]


def draw_groups(requests: int, pairs: int = 4) -> dict[str, list[Group]]:
    """Groups of (prompt, completion) of one schema each, for the DSL and for plain objects."""
    words, rng = Words(), random.Random(SEED)
    found: dict[str, list[Group]] = {"query DSL": [], "plain objects": []}
    while min(map(len, found.values())) * pairs < requests:
        group = draw_group(words, rng, pairs)
        kind = "query DSL" if "\nrefusal? object" in group[0][0] else "plain objects"
        if len(found[kind]) * pairs < requests:
            found[kind].append(group)
    return found


def answer(student: Student, groups: list[Group]) -> tuple[float, float]:
    """Shares of greedy answers that are JSON, and that are the truth to the letter."""
    pairs = [pair for group in groups for pair in group]
    answers = generate(student, [prompt for prompt, _ in pairs], 320, 64)
    parsed = sum(_is_json(made.text) for (made,) in answers)
    exact = sum(made.text == truth for (_, truth), (made,) in zip(pairs, answers, strict=True))
    return parsed / len(pairs), exact / len(pairs)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def loss_by_key(student: Student, groups: list[Group]) -> dict[str, tuple[int, float, float]]:
    """Key -> (tokens, mean loss in nats, share of tokens given more than half of the probability)."""
    seen: dict[str, list[float]] = collections.defaultdict(list)
    for group in groups:
        ids = [(encode_prompt(student.tokenizer, p), encode_completion(student.tokenizer, c)) for p, c in group]
        width = max(len(completion) for _, completion in ids)
        with torch.no_grad():
            batch = plant(grow(ids, least_share=0.0))
            logps_BC = forest_logps(student.model, batch, len(ids), width)
        for (_, text), (_, completion), logps in zip(group, ids, logps_BC.tolist(), strict=True):
            place = 0
            for token, logp in zip(completion[:-1], logps, strict=False):
                piece = student.tokenizer.decode([token])
                keys = re.findall(r'"(\w+)":"?\[?[^:]*$', text[:place])
                seen["punctuation" if re.fullmatch(r"\W+", piece) else keys[-1] if keys else "start"].append(logp)
                place += len(piece)
    return {key: (len(v), -sum(v) / len(v), sum(p > -0.693 for p in v) / len(v)) for key, v in seen.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    student = load_student(default_settings(base_model=options.base))
    groups = draw_groups(options.requests)
    print("| drawn as in pretraining | requests | JSON | exact |\n|---|---|---|---|")
    for kind, drawn in groups.items():
        parsed, exact = answer(student, drawn)
        print(f"| {kind} | {sum(map(len, drawn))} | {parsed:.1%} | {exact:.1%} |")
    table = loss_by_key(student, groups["query DSL"])
    total = sum(count * mean for count, mean, _ in table.values())
    print("\n| DSL, tokens under | tokens | share of loss | nats a token | p > 1/2 |\n|---|---|---|---|---|")
    for key, (count, mean, sure) in sorted(table.items(), key=lambda item: -item[1][0] * item[1][1]):
        print(f"| {key} | {count} | {count * mean / total:.0%} | {mean:.3f} | {sure:.1%} |")


if __name__ == "__main__":
    main()
