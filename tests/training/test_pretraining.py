"""Pretraining: drawn answers are valid, the stream repeats, and a few steps run, save, and continue."""

import itertools
import json
import random
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from safetensors.torch import load_file

from schema_student.core.jsonl import read_jsonl
from schema_student.core.resources import EMBEDDED_STUDENT
from schema_student.core.stamps import digest
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.student.prompt_tree import build_trees
from schema_student.training.pretraining import data, train


def test_every_drawn_object_answer_is_valid():
    words = data.Words()
    assert words.hardness == 1.0
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


def test_the_data_of_the_recipe_is_drawn_to_the_letter():
    """A change of this digest is another student: it has to be meant, and goes with a new one."""
    words, found = data.Words(), []
    for seed in range(120):
        words.hardness, rng = seed % 5 / 4, random.Random(seed)
        found.append([data.draw_group(words, rng, 3), rng.random()])
    assert digest(found) == "059aeb915517e199c60abef96fc80e84dc2db6d03b279e95260b39476ae3872d"


def test_the_batches_of_the_recipe_are_those_of_its_seed_step_and_process():
    from schema_student.student.loading import load_tokenizer

    batches = train.endless_batches(load_tokenizer(str(EMBEDDED_STUDENT)), train.Recipe(), begin=5000, rank=1)
    drawn = list(itertools.islice(batches, 3))
    assert [len(batch) for batch in drawn] == [2, 4, 3]
    drawn_digest = digest([[asdict(row) for row in batch] for batch in drawn])
    assert drawn_digest == "39f4ad9e33172bd09979b9113c0d48e3691bebbfadbd74c4af4ed46a574c0a42"


def test_the_tokenizer_learns_from_four_thousand_groups_and_twenty_times_each_word(monkeypatch):
    words, asked = data.Words(), []
    monkeypatch.setattr(train, "draw_group", lambda *given: asked.append(given) or [("a", "b", {}), ("c", "d", {})])
    rng = random.Random(3)
    texts = train.tokenizer_texts(words, rng)
    assert list(itertools.islice(texts, 16_000)) == ["a", "b", "c", "d"] * 4000
    assert len(asked) == 4000 and asked[0] == (words, rng, 3)
    known = [word for pool in words.pools.values() for word in pool]
    assert sorted(texts) == sorted(known * 20)


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
        groups = [data.draw_group(words, rng, 1) for _ in range(60)]
        return sum(len(prompt) for ((prompt, _, _),) in groups) / len(groups)

    assert mean_prompt(0.0) < mean_prompt(0.5) < mean_prompt(1.0)


def test_the_learning_rate_rises_stays_and_falls():
    recipe = train.Recipe(steps=1000, warmup_steps=100, cooldown_share=0.3)
    rates = [train.learning_rate_factor(step, recipe) for step in range(1000)]
    assert rates[:101] == [min(1.0, (step + 1) / 100) for step in range(101)]
    assert {*rates[99:701]} == {1.0} and rates[-1] == 0.05
    assert rates[701:-16] == [(1000 - step) / 300 for step in range(701, 984)]
    shipped = [train.learning_rate_factor(step, train.Recipe()) for step in (0, 99, 16_800, 20_400, 23_999)]
    assert shipped == [0.01, 1.0, 1.0, 0.5, 0.05]


@pytest.fixture
def small(monkeypatch):
    """Small texts and batches, and a clock that goes on by a second each time it is read; the streams asked for."""
    asked = []

    def batches(tokenizer, recipe, begin, rank):
        asked.append((recipe.steps, begin, rank))
        return itertools.repeat([build_trees([([5, 6, 7], [8, 9]), ([5, 6, 7], [9])], least_share=0.0)[0]])

    monkeypatch.setattr(train, "tokenizer_texts", lambda words, rng: iter(["Search orders", '{"unit":"km"}'] * 3))
    monkeypatch.setattr(train, "endless_batches", batches)
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=iter(range(100, 200)).__next__))
    return asked


def of_log(folder):
    return [(row["step"], row["tokens"], row["seconds"]) for row in read_jsonl(folder / "pretraining_log.jsonl")]


def test_a_pretraining_saves_a_base_and_continues_and_another_process_writes_nothing(small, tmp_path, monkeypatch):
    from schema_student.student.loading import load_tokenizer

    recipe = train.Recipe(steps=27, warmup_steps=56, cooldown_share=0.01, hidden_size=96, layers=1, vocabulary=270)
    train.pretrain(recipe, tmp_path)
    assert of_log(tmp_path) == [(0, 4, 1), (25, 104, 26), (26, 108, 27)]
    first = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert (first["step"], first["tokens"], first["seconds"]) == (27, 108, 27)
    with (tmp_path / "pretraining_log.jsonl").open("a") as file:
        file.write('{"step": 27, "tokens": 0, "seconds": 0}\n')  # of a run that was ended before it saved that step
    train.pretrain(replace(recipe, steps=28), tmp_path)
    assert of_log(tmp_path)[2:] == [(26, 108, 27), (27, 112, 28)]
    saved, tokenizer = torch.load(tmp_path / "resume.pt", weights_only=True), load_tokenizer(str(tmp_path))
    assert (saved["step"], saved["tokens"], saved["seconds"]) == (28, 112, 28) and len(tokenizer) == 270
    muon, adamw = ([*each["param_groups"]] for each in saved["optimizers"])
    assert [(each["lr"], each["momentum"], each["weight_decay"]) for each in muon] == [(0.01, 0.95, 0.0)]
    assert [(each["lr"], each["betas"], each["weight_decay"]) for each in adamw] == [(0.0015, (0.9, 0.98), 0.0)]
    assert len(muon[0]["params"]) == 7 and len(adamw[0]["params"]) == 8  # matrices; norms and the embedding
    assert {float(each["step"]) for each in saved["optimizers"][1]["state"].values()} == {28.0}
    base = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in base.values()} == {torch.bfloat16}
    assert all(torch.equal(weight, saved["model"][name].bfloat16()) for name, weight in base.items())

    files, calls = {file: file.read_bytes() for file in tmp_path.iterdir()}, []
    for name in ("init_process_group", "barrier", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *given, name=name: calls.append((name, *given)))
    monkeypatch.setattr(
        "schema_student.training.distributed.average_gradients", lambda weights: calls.append(len(list(weights)))
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    train.pretrain(replace(recipe, steps=29), tmp_path)
    assert calls == [("init_process_group", "gloo"), ("barrier",), 15, ("destroy_process_group",)]
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files
    assert small == [(27, 0, 0), (28, 27, 0), (29, 28, 1)]


def test_a_loss_that_is_not_finite_ends_a_pretraining(small, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "packed_loss", lambda model, batch: torch.tensor(float("nan")))
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        train.pretrain(train.Recipe(steps=1, hidden_size=96, layers=1, vocabulary=270), tmp_path)
