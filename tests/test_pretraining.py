"""Pretraining data and packing: packed equals separate, answers are valid, the stream repeats."""

import itertools
import json
import random
import sys
from pathlib import Path

import torch

from schema_student import pretraining, schemas
from schema_student.student import encode_completion, encode_prompt

sys.path.insert(0, str(Path(__file__).parent))
import tiny


def test_packed_branches_have_the_loss_of_separate_sequences():
    tokenizer, model = tiny.tiny_tokenizer(), tiny.tiny_model(sliding_window=4096)
    texts = [("schema of shops: red", "{1}"), ("schema of shops: blue ones", "{22}"), ("schema of shops: r", "{3}")]
    pairs = [
        (encode_prompt(tokenizer, prompt), encode_completion(tokenizer, completion)) for prompt, completion in texts
    ]
    packed = pretraining.packed_loss(
        model, pretraining.collate([pretraining.pack_group(pairs)], tokenizer.pad_token_id)
    )
    total, count = 0.0, 0
    for prompt, completion in pairs:
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="sum").item()
        count += len(completion)
    assert abs(packed.item() - total / count) < 0.02  # the packed forward runs in bfloat16


def test_every_drawn_object_answer_is_valid():
    words = pretraining.Words()
    for seed in range(150):
        rng = random.Random(seed)
        schema, sample = pretraining.draw_object_schema(words, rng)
        value = sample(rng)
        verdict = schemas.judge(json.dumps(value), schemas.compile_schema(schema))
        assert verdict.schema_valid, (schema, value, verdict.violations)


def test_the_same_seed_gives_the_same_stream():
    tokenizer = tiny.tiny_tokenizer()
    first, second = (list(itertools.islice(pretraining.endless_rows(tokenizer, 5, 3, 10_000), 4)) for _ in range(2))
    assert first == second


def test_batches_hold_every_row_once_under_the_budget():
    rows = [pretraining.PackedRow([i] * n, [], [], []) for i, n in enumerate(range(10, 74))]
    made = list(itertools.islice(pretraining.batches(iter(rows), 256, pool=64), 64))
    kept = made[: next(k for k in range(len(made)) if sum(map(len, made[: k + 1])) == 64) + 1]
    assert sorted(row.ids[0] for batch in kept for row in batch) == list(range(64))
    assert all(len(batch) * max(len(row.ids) for row in batch) <= 256 for batch in kept)


def test_the_learning_rate_rises_stays_and_falls():
    recipe = pretraining.Recipe(steps=1000, warmup_steps=100, cooldown_share=0.3)
    rates = [pretraining.learning_rate_factor(step, recipe) for step in range(1000)]
    assert rates[0] == 0.01 and max(rates) == 1.0 and rates[500] == 1.0 and rates[-1] == 0.05
