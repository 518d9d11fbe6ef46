"""Perplexity is exp of the mean cross-entropy of reference answers, by token and by character, on any rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from training_runs import SCHEMA, settings_with_corpus

from schema_student.cli.main import dispatch
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow
from schema_student.data.row_lengths import find_percentiles
from schema_student.evaluation import perplexity
from schema_student.student import batching, generation
from schema_student.student.generated import Generation
from schema_student.student.loading import load_student
from schema_student.training import sft


def rows_of(*completions, split="test_seen"):
    return [
        CorpusRow(schema_id="s", prompt=f"number {i}", completion=text, is_valid=True, split=split)
        for i, text in enumerate(completions)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of SFT of the tiny student, with a dataset of two test splits."""
    settings = settings_with_corpus(tmp_path_factory.mktemp("perplexity"), sft_max_steps=2, max_new_tokens=16)
    head = {"schema_id": "s", "domain": "d", "schema_json": json.dumps(SCHEMA), "current_date": "2026-01-31"}
    rows = [
        {**head, "query": f"number {i}", "ast_json": json.dumps({"n": i}), "is_valid": True, "split": split}
        for i, split in enumerate(["test_seen"] * 3 + ["test_unseen"] * 2)
    ]
    rows.append({**rows[0], "query": "nobody answered it", "ast_json": "null"})
    write_jsonl(paths(settings).dataset, rows)
    sft.train_sft(settings)
    return settings


def cross_entropy(student, row):
    """Nats of a completion, each token alone by its logits: no trees, no padding."""
    ids = batching.encode(student.tokenizer, row.prompt, row.completion)
    with torch.no_grad():
        logits = student.model(torch.tensor([ids.tokens])).logits[0].double()
    begin = len(ids.prompt_ids)
    return float(
        torch.nn.functional.cross_entropy(logits[begin - 1 : -1], torch.tensor(ids.completion_ids), reduction="sum")
    )


def test_it_is_the_exponential_of_the_mean_cross_entropy(run):
    student = load_student(run)
    rows = rows_of('{"n":1}', '{"n":12345}', "caf\u00e9")
    found = perplexity.measure_perplexity(student, rows, student.settings)["overall"]
    nats = sum(cross_entropy(student, row) for row in rows)
    tokens = sum(len(row.completion.encode()) + 1 for row in rows)  # bytes, and the end of each turn
    assert found["tokens"] == tokens and found["characters"] == sum(len(row.completion) for row in rows) == 22
    assert found["perplexity_a_token"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert found["perplexity_a_character"] == pytest.approx(math.exp(nats / 22), rel=1e-4)
    assert found["nats_an_answer"] == pytest.approx(nats / 3, rel=1e-4)


def test_splits_stand_apart_and_what_is_too_long_is_counted(run):
    student = load_student(run.changed(max_seq_length=60))
    rows = [*rows_of("a", "bb"), *rows_of("ccc", split="mine"), *rows_of("d" * 60)]
    found = perplexity.measure_perplexity(student, rows, student.settings)
    assert found["overall"]["left_out"] == 1 and found["overall"]["rows"] == 3
    assert {split: each["rows"] for split, each in found["splits"].items()} == {"test_seen": 2, "mine": 1}
    alone = perplexity.measure_perplexity(student, rows[2:3], student.settings)["overall"]
    assert found["splits"]["mine"]["perplexity_a_token"] == pytest.approx(alone["perplexity_a_token"], rel=1e-5)


def test_a_row_that_just_fits_is_read_and_one_that_the_template_refuses_is_left_out(run):
    student, (row,) = load_student(run), rows_of("a")
    student.tokenizer.chat_template += "{% if refuse %}{{ raise_exception('no') }}{% endif %}"
    refused = replace(row, chat_template_kwargs={"refuse": True})
    length = len(batching.encode(student.tokenizer, row.prompt, row.completion))
    for longest, read in ((length, 1), (length - 1, 0)):
        settings = student.settings.changed(max_seq_length=longest)
        found = perplexity.measure_perplexity(student, [row, refused], settings)["overall"]
        assert (found["rows"], found["left_out"]) == (read, 2 - read)


def test_of_no_row_nothing_is_known(run):
    student = load_student(run)
    found = perplexity.measure_perplexity(student, [], student.settings)["overall"]
    assert found["rows"] == 0 and found["perplexity_a_token"] is None and found["nats_an_answer"] is None


def test_parameters_of_the_adapter_are_those_that_training_moves(run):
    alone = perplexity.count_parameters(load_student(run).model)
    assert alone == {"total": tiny.tiny_model().num_parameters(), "trainable": 0}
    student = load_student(run, adapter=str(paths(run).sft_checkpoint), trainable=True)
    moved = sum(weight.numel() for weight in student.model.parameters() if weight.requires_grad)
    assert perplexity.count_parameters(student.model) == {"total": alone["total"] + moved, "trainable": moved}


def test_texts_are_described_by_distinct_words_and_lengths():
    found = perplexity.describe_texts(["one two One two", "one tw\u00f6"], tiny.tiny_tokenizer())
    assert {name: found[name] for name in ("texts", "distinct_1", "distinct_2", "distinct_3")} == {
        "texts": 2,
        "distinct_1": 0.5,  # one, two, tw\u00f6 of 6
        "distinct_2": 0.75,  # (one two), (two one), (one tw\u00f6) of 4
        "distinct_3": 1.0,
    }
    assert found["characters"] == {"p50": 7, "p90": 15, "p99": 15, "max": 15}
    assert found["tokens"] == {"p50": 8, "p90": 15, "p99": 15, "max": 15}  # bytes
    assert find_percentiles([7, 15]) == [7, 15, 15, 15]
    nothing = {"texts": 0, "distinct_1": 0.0, "distinct_2": 0.0, "distinct_3": 0.0}
    assert perplexity.describe_texts([], tiny.tiny_tokenizer()) == nothing


def test_the_student_s_own_answers_are_those_to_some_of_the_rows(run, monkeypatch):
    asked = []

    def generate(student, prompts, *how):
        asked.append((prompts, how))
        return [[Generation(prompt, 3, prompt == "number 0", 0.0)] for prompt in prompts]

    monkeypatch.setattr(generation, "generate", generate)
    student = SimpleNamespace(tokenizer=tiny.tiny_tokenizer())
    found = perplexity.describe_answers(student, rows_of(*"abcde"), 2, run.changed(eval_batch_size=3))
    assert asked == [(["number 0", "number 2"], (16, 3))]
    assert (found["texts"], found["finished"], found["characters"]["max"]) == (2, 1, 8)


TEXTS = {"texts": 4, "distinct_1": 0.5, "distinct_2": 0.25, "distinct_3": 0.125, "finished": 3}
TEXTS |= {"characters": {"p50": 7, "p90": 1200}, "tokens": {"p50": 2, "p90": 300}}


def test_models_are_listed_side_by_side():
    overall = {"rows": 1234, "left_out": 2, "perplexity_a_token": 1.5, "perplexity_a_character": None}
    overall |= {"nats_an_answer": 0.25, "tokens": 70, "characters": 60}
    splits = {"test_seen": {"perplexity_a_token": 2.0}, "mine": {"perplexity_a_token": 3.0}}
    one = {"overall": overall, "splits": splits, "references": TEXTS, "answers": TEXTS}
    one["parameters"] = {"total": 2600000, "trainable": 0}
    two = {**one, "splits": {"mine": {"perplexity_a_token": 4.0}}, "answers": None}
    names = "base", "an/adapter/with-a/long-name"
    lines = perplexity.list_lines(dict(zip(names, (one, two), strict=True)))
    assert {len(line) for line in lines} == {48 + 2 * 24}
    assert [[line[:48].rstrip(), line[48:72].strip(), line[72:].strip()] for line in lines] == [
        ["", "base", "apter/with-a/long-name"],
        ["rows", "1,234", "1,234"],
        ["left out: too long, or refused by the template", "2", "2"],
        ["perplexity a token", "1.5000", "1.5000"],
        ["perplexity a character", "-", "-"],
        ["-log p of an answer, nats", "0.250", "0.250"],
        ["tokens of reference answers", "70", "70"],
        ["characters of them", "60", "60"],
        ["perplexity a token, test_seen", "2.0000", "-"],
        ["perplexity a token, mine", "3.0000", "4.0000"],
        ["references, distinct-1", "0.5000", "0.5000"],
        ["references, distinct-2", "0.2500", "0.2500"],
        ["references, distinct-3", "0.1250", "0.1250"],
        ["references, characters: p50, p90, p99, max", "7, 1,200", "7, 1,200"],
        ["references, tokens: p50, p90, p99, max", "2, 300", "2, 300"],
        ["parameters, total", "2,600,000", "2,600,000"],
        ["parameters, trainable", "0", "0"],
    ]
    lines = perplexity.list_lines({"base": one})
    assert [line.split()[-3:] for line in lines if line.startswith("answers that ended")] == [["3", "of", "4"]]
    assert sum(line.startswith("answers, ") for line in lines) == 5


# ---- the verb


def flags_of(run):
    return ["--output-dir", run.run.output_dir, "--base-model", run.student.base_model, "--dtype", "float32"]


def test_models_stand_side_by_side_on_the_same_rows(run, tmp_path, capsys):
    out = tmp_path / "found.json"
    dispatch(["perplexity", *flags_of(run), "--adapters", "base,student", "--out", str(out), "--answers", "2"])
    said, found = capsys.readouterr().out, read_json(out)
    base, tuned = found["base"], found["student"]
    assert base["overall"]["rows"] == tuned["overall"]["rows"] == 5
    assert set(base["splits"]) == set(tuned["splits"]) == {"test_seen", "test_unseen"}
    assert tuned["overall"]["perplexity_a_token"] < base["overall"]["perplexity_a_token"]
    assert (base["parameters"]["trainable"], tuned["parameters"]["trainable"] > 0) == (0, True)
    assert base["answers"]["texts"] == 2 and base["references"] == tuned["references"]
    line = next(line for line in said.splitlines() if line.startswith("perplexity a token  "))
    assert [float(word) for word in line.split()[3:]] == [
        round(each["overall"]["perplexity_a_token"], 4) for each in (base, tuned)
    ]


def test_without_adapters_the_base_stands_beside_the_adapter_that_the_run_ends_with(run, tmp_path):
    out = tmp_path / "found.json"
    dispatch(["perplexity", *flags_of(run), "--out", str(out), "--eval-splits", "test_seen", "--eval-limit", "2"])
    found = read_json(out)
    assert list(found) == ["base", str(paths(run).sft_checkpoint)] and found["base"]["overall"]["rows"] == 2


def test_any_rows_are_measured(run, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "mine.jsonl", [{"prompt": f"say {i}", "completion": "x" * (i + 1)} for i in range(4)])
    flags = [*flags_of(run), "--data-set", str(tmp_path / "mine.jsonl"), "--adapters", "base"]
    dispatch(["perplexity", *flags, "--out", str(tmp_path / "found.json")])
    assert read_json(tmp_path / "found.json")["base"]["overall"]["characters"] == 10


def test_an_adapter_that_is_not_there_is_refused(run):
    with pytest.raises(UserError, match="--adapters: there is no adapter in nobody, nor a run of that name"):
        dispatch(["perplexity", *flags_of(run), "--adapters", "base,nobody"])
