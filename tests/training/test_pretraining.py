"""Pretraining: drawn answers are valid, the stream repeats, and a few steps run, save, and continue."""

import itertools
import json
import random

import pytest
import tiny

from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.training.pretraining import data, train


def test_every_drawn_object_answer_is_valid():
    words = data.Words()
    for seed in range(150):
        rng = random.Random(seed)
        schema, sample = data.draw_object_schema(words, rng)
        value = sample(rng)
        verdict = judge(json.dumps(value), compile_schema(schema))
        assert verdict.schema_valid, (schema, value, verdict.violations)


def test_every_drawn_lookup_answer_is_valid_and_called_by_its_description():
    from schema_student.teacher.embedded.bank import load_bank

    words, bank = data.Words(), load_bank("pretraining")
    for seed in range(40):
        schema, requests = data.draw_lookup(words, bank, random.Random(seed), 3)
        (key,) = schema["properties"]
        called = {o["const"]: o["description"].split(" / ") for o in schema["properties"][key]["items"]["oneOf"]}
        for request in requests:
            assert judge(json.dumps(request.answer), compile_schema(schema)).schema_valid
            said = request.query.lower()
            assert all(called[name][request.language == "fr"].lower() in said for name in request.answer[key])


def test_a_hint_is_the_start_of_the_name_behind_a_label_of_the_request():
    tokenizer = tiny.tiny_tokenizer()
    prompt = tokenizer.encode(
        "Schema: unit price: cost\nRequest: the unit price of price tags", add_special_tokens=False
    )
    hints = train.find_hints(tokenizer, prompt, {"price": "tariff", "unit price": "cost"})
    read = [(tokenizer.decode(seen), tokenizer.decode(first)) for seen, first in hints]
    assert [seen.partition("Request: ")[2] for seen, _ in read] == ["the unit price", "the unit price of price"]
    assert "cost".startswith(read[0][1]) and "tariff".startswith(read[1][1])


def test_a_label_of_two_names_is_in_no_glossary():
    choices = [
        {"const": "a", "description": "red / rouge"},
        {"const": "b", "description": "pink / rouge"},
        {"const": "c", "description": "blue / bleu"},
    ]
    schema = {"properties": {"colors": {"type": "array", "items": {"oneOf": choices}}}}
    assert data.read_glossary(schema, "fr") == {"bleu": "c"}
    assert {"red": "a", "pink": "b", "blue": "c"}.items() <= data.read_glossary(schema, "en").items()


def first_batches(count, begin=0, **recipe):
    recipe = train.Recipe(**{"pairs_per_row": 3, "tokens_per_batch": 4000, **recipe})
    return list(itertools.islice(train.endless_batches(tiny.tiny_tokenizer(), recipe, begin), count))


def test_the_same_recipe_gives_the_same_stream():
    assert first_batches(3) == first_batches(3)
    assert first_batches(3) != first_batches(3, seed=8)


def test_a_batch_holds_whole_rows_under_the_budget():
    for batch in first_batches(6):
        assert batch
        assert sum(len(row.ids) for row in batch) <= 4000


def test_what_is_drawn_gets_harder():
    words = data.Words()

    def mean_prompt(hardness):
        words.hardness = hardness
        rng = random.Random(0)
        groups = [data.draw_group(words, rng, 1) for _ in range(150)]
        return sum(len(prompt) for ((prompt, _, _),) in groups) / len(groups)

    assert mean_prompt(0.0) < mean_prompt(0.5) < mean_prompt(1.0)


def test_the_learning_rate_rises_stays_and_falls():
    recipe = train.Recipe(steps=1000, warmup_steps=100, cooldown_share=0.3)
    rates = [train.learning_rate_factor(step, recipe) for step in range(1000)]
    assert rates[0] == 0.01 and max(rates) == 1.0 and rates[500] == 1.0 and rates[-1] == 0.05


@pytest.mark.slow
def test_a_pretraining_runs_saves_a_base_and_continues(tmp_path):
    from schema_student.student.loading import load_tokenizer

    recipe = train.Recipe(steps=2, hidden_size=96, layers=1, vocabulary=400, tokens_per_batch=2048)
    train.pretrain(recipe, tmp_path)
    train.pretrain(train.Recipe(**{**vars(recipe), "steps": 3}), tmp_path)
    log = [json.loads(line) for line in (tmp_path / "pretraining_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [0, 1, 2]
    assert load_tokenizer(str(tmp_path)).chat_template
    assert (tmp_path / "model.safetensors").stat().st_size > 10_000
