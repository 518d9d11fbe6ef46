"""What the embedded student can do on schemas drawn as in its pretraining, from a seed that pretraining never used.

python benchmarks/embedded_student.py [--base models/embedded-student] [--requests 200]

First: greedy answers, the share that are JSON and the share that equal the truth, for the query DSL, lists of named
choices and plain objects.
Then, where the DSL's loss is: nats by the JSON key that a token stands under. Last, fields found by how the request
calls them: by the words of their name, which can be copied, or by words that only the schema leads back to the name.
Run it on the snapshots of a pretraining to see what has been learned.
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
from schema_student.core.settings import default_settings
from schema_student.schema.prompts import render_prompt
from schema_student.schema.query_dsl import read_dsl
from schema_student.schema.rendering import completion_text
from schema_student.student.generation import generate
from schema_student.student.loading import Student, load_student
from schema_student.student.prompt_tree import build_trees, pack_trees, packed_logps
from schema_student.student.tokens import encode_completion, encode_prompt
from schema_student.teacher.embedded.bank import load_bank
from schema_student.teacher.embedded.requests import draw_request
from schema_student.training.pretraining.data import Words, draw_dsl_schema, draw_group

SEED, DAY = 990_001, "2026-01-31"
Group = list[tuple[str, str]]


def draw_groups(requests: int, pairs: int = 4) -> dict[str, list[Group]]:
    """Groups of (prompt, completion) of one schema each, for the DSL, lists of named choices and plain objects."""
    words, rng = Words(), random.Random(SEED)
    found: dict[str, list[Group]] = {"query DSL": [], "named choices": [], "plain objects": []}
    while min(map(len, found.values())) * pairs < requests:
        group = [(prompt, completion) for prompt, completion, _ in draw_group(words, rng, pairs)]
        prompt = group[0][0]
        lookup = re.search(r"Schema:\n.*\n.* list of one of\n", prompt)
        kind = "query DSL" if "\nrefusal? object" in prompt else "named choices" if lookup else "plain objects"
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


def fields_found(student: Student, requests: int, hardness: float) -> dict[str, tuple[int, int]]:
    """How a field is called -> (times found, times asked), over greedy answers to answerable DSL requests."""
    words, rng, bank = Words(hardness), random.Random(SEED), load_bank("pretraining")
    asked = []
    while len(asked) < requests:
        schema = draw_dsl_schema(words, rng)
        spec = read_dsl(schema)
        for language in ("en", "fr"):
            request = draw_request(spec, bank, language, "answerable", DAY, rng, words.value)
            asked.append((render_prompt(schema, request.query, DAY), request, language))
    found: dict[str, tuple[int, int]] = {}
    answers = generate(student, [prompt for prompt, _, _ in asked], 320, 64)
    for (_, request, language), (made,) in zip(asked, answers, strict=True):
        given = re.findall(r'"field":"([^"]*)"', made.text)
        for place, name in enumerate(re.findall(r'"field":"([^"]*)"', completion_text(request.answer))):
            named = name.replace("_", " ") in request.query.lower()
            how = "by its name" if named else "by its description" if language == "en" else "in French"
            right, times = found.get(how, (0, 0))
            found[how] = right + (place < len(given) and given[place] == name), times + 1
    return found


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
            batch = pack_trees(build_trees(ids, least_share=0.0))
            logps_BC = packed_logps(student.model, batch, len(ids), width)
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
    print("\n| hardness | a field that the request calls | asked | found |\n|---|---|---|---|")
    for hardness in (0.0, 1.0):
        for how, (right, times) in sorted(fields_found(student, options.requests, hardness).items()):
            print(f"| {hardness:.0f} | {how} | {times} | {right / times:.1%} |")


if __name__ == "__main__":
    main()
