"""Pretraining: drawn answers are valid, the stream repeats, and a few steps run, save, and continue."""

import itertools
import json
import random

import tiny

from schema_student import pretraining, prompt_tree, schemas


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
    rows = [prompt_tree.Tree([i] * n) for i, n in enumerate(range(10, 74))]
    made = list(itertools.islice(pretraining.batches(iter(rows), 256, pool=64), 64))
    kept = made[: next(k for k in range(len(made)) if sum(map(len, made[: k + 1])) == 64) + 1]
    assert sorted(row.ids[0] for batch in kept for row in batch) == list(range(64))
    assert all(len(batch) * max(len(row.ids) for row in batch) <= 256 for batch in kept)


def test_the_learning_rate_rises_stays_and_falls():
    recipe = pretraining.Recipe(steps=1000, warmup_steps=100, cooldown_share=0.3)
    rates = [pretraining.learning_rate_factor(step, recipe) for step in range(1000)]
    assert rates[0] == 0.01 and max(rates) == 1.0 and rates[500] == 1.0 and rates[-1] == 0.05


def test_a_pretraining_runs_saves_a_base_and_continues(tmp_path):
    from schema_student.student import load_tokenizer

    recipe = pretraining.Recipe(steps=2, hidden_size=96, layers=1, vocabulary=400, tokens_per_step=2048)
    pretraining.pretrain(recipe, tmp_path)
    pretraining.pretrain(pretraining.Recipe(**{**vars(recipe), "steps": 3}), tmp_path)
    log = [json.loads(line) for line in (tmp_path / "pretraining_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [0, 1, 2]
    assert load_tokenizer(str(tmp_path)).chat_template
    assert (tmp_path / "model.safetensors").stat().st_size > 10_000
