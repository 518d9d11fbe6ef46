"""SFT answers a fixed sample of validation requests while it trains; it may choose, and stop, by validations."""

from __future__ import annotations

import json

import pytest
import tiny
from training_runs import SCHEMA, killed_in_step, metrics, same_run

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows, write_rows
from schema_student.data.corpus import build_rows
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.student.generation import generate
from schema_student.student.loading import load_student
from schema_student.training import fine_tuning, sft
from schema_student.training.stopping import count_since_best, explain_stop
from schema_student.training.validation_answers import draw_asked

ANSWERED = {"eval_answers", "eval_valid", "eval_as_asked"}


def settings_with_dataset(folder, **changes):
    """A run of SFT on a dataset of twelve rows, and eight to validate by."""
    small = {"sft_max_steps": 6, "sft_learning_rate": 0.01, "sft_eval_answers": 3, "max_new_tokens": 16}
    settings = tiny.tiny_settings(folder, **{**small, **changes})
    head = {"schema_id": "s", "domain": "d", "schema_json": json.dumps(SCHEMA), "current_date": "2026-01-31"}
    rows = [
        {**head, "query": f"number {i}", "ast_json": json.dumps({"n": i}), "is_valid": True, "split": split}
        for split, numbers in (("train", range(12)), ("validation", range(50, 58)))
        for i in numbers
    ]
    write_jsonl(paths(settings).dataset, rows)
    made, _ = build_rows(read_rows(paths(settings).dataset, DatasetRow), "none")
    write_rows(paths(settings).corpus, made)
    return settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    settings = settings_with_dataset(tmp_path_factory.mktemp("answers"))
    sft.train_sft(settings)
    return settings


def validations(settings):
    return [row for row in metrics(paths(settings).run_dir) if "eval_loss" in row]


def corpus_of(settings):
    return [row for row in fine_tuning.read_rows(paths(settings).corpus, fine_tuning.CorpusRow) if row.split != "train"]


def test_each_validation_logs_what_comes_of_the_sample(trained):
    rows = validations(trained)
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    assert all(row["eval_answers"] == 3 and set(row) >= ANSWERED for row in rows)


def test_the_shares_are_those_of_greedy_answers_of_the_checkpoint(trained, tmp_path, monkeypatch):
    made = [f'{{"n":{i}}}' for i in range(50, 58)]

    def answer(student, prompts, *given):
        """Answer the first request of the sample right, the second with another number, the third not at all."""
        return [[type("Made", (), {"text": text})] for text in (made[wanted[0]], '{"n":1}', "none")[: len(prompts)]]

    asked = draw_asked(corpus_of(trained), paths(trained).dataset, sft.resolve_student(trained)[1])
    wanted = [int(each.row.query.split()[1]) - 50 for each in asked]
    monkeypatch.setattr("schema_student.training.validation_answers.generate", answer)
    settings = settings_with_dataset(tmp_path, sft_max_steps=1)
    sft.train_sft(settings)
    assert {(row["eval_valid"], row["eval_as_asked"]) for row in validations(settings)} == {(2 / 3, 1 / 3)}


def test_the_logged_shares_are_those_of_the_saved_adapter(trained):
    run_dir = paths(trained).run_dir
    student = load_student(trained, adapter=str(run_dir / "checkpoint-6"))
    asked = draw_asked(corpus_of(trained), paths(trained).dataset, student.settings)
    written = [each.text for (each,) in generate(student, [each.prompt for each in asked], 16, 8)]
    grades = [grade(text, compile_schema(SCHEMA), each.row.target) for text, each in zip(written, asked, strict=True)]
    assert validations(trained)[-1]["eval_valid"] == sum(each.verdict.schema_valid for each in grades) / 3


def test_the_sample_is_drawn_by_the_seed_alone(trained):
    corpus, dataset, resolved = corpus_of(trained), paths(trained).dataset, sft.resolve_student(trained)[1]
    drawn = [draw_asked(corpus, dataset, resolved.changed(seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 3
    assert {each.row.split for each in drawn[0]} == {"validation"}
    assert draw_asked(corpus, dataset, resolved.changed(sft_eval_answers=99)) == draw_asked(
        corpus, dataset, resolved.changed(sft_eval_answers=8)
    )


def test_zero_answers_none(tmp_path):
    settings = settings_with_dataset(tmp_path, sft_eval_answers=0, sft_max_steps=1)
    sft.train_sft(settings)
    assert not any(ANSWERED & set(row) for row in validations(settings))


def write_validations(folder, rows):
    path = folder / "training_metrics.jsonl"
    named = ("step", "eval_loss", "eval_as_asked", "eval_valid")
    write_jsonl(path, [{**dict(zip(named, row, strict=True)), "eval_answers": 8} for row in rows])


def test_the_checkpoint_of_the_best_answers_may_be_another_than_that_of_the_least_loss(tmp_path):
    write_validations(tmp_path, [(2, 0.1, 0.5, 1.0), (4, 0.4, 0.75, 1.0), (6, 0.3, 0.75, 1.0), (8, 0.2, 0.75, 0.8)])
    choose = fine_tuning.choose_checkpoint
    assert choose(tmp_path, [2, 4, 6, 8], True, "least-loss")["checkpoint"] == "checkpoint-2"
    found = choose(tmp_path, [2, 4, 6, 8], True, "answers")  # of equal answers that of the less loss
    assert found["checkpoint"] == "checkpoint-6" and "75.0% of 8 validation requests" in found["why"]
    assert choose(tmp_path, [2, 4], True, "answers")["checkpoint"] == "checkpoint-4"  # only what was saved
    assert choose(tmp_path, [2, 4, 6, 8], True, "last")["checkpoint"] == "checkpoint-8"


def test_patience_counts_from_the_first_of_the_best():
    scores = [(-1.0,), (-0.5,), (-0.7,), (-0.5,)]
    assert [count_since_best(scores[:n]) for n in range(1, 5)] == [0, 0, 1, 2]
    assert explain_stop(scores[:3], 2) == "" and "loss 0.5000" in explain_stop(scores, 2)
    assert explain_stop(scores, 0) == ""


IMPATIENT = {"sft_learning_rate": 0.3, "sft_patience": 2, "sft_max_steps": 20, "sft_eval_answers": 0}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run whose loss rises from the start on."""
    settings = settings_with_dataset(tmp_path_factory.mktemp("stopped"), **IMPATIENT)
    sft.train_sft(settings)
    return settings


def test_training_stops_where_validations_are_no_better_for_so_long(stopped):
    losses = [row["eval_loss"] for row in validations(stopped)]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 and metrics(paths(stopped).run_dir)[-1]["step"] == 2 * (best + 2) < 20
    config = read_json(paths(stopped).run_dir / "run_config.json")
    assert "2 validations in a row" in config["stopped"] and config["steps"] == 20


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_run_that_was_killed_stops_at_the_same_step(stopped, tmp_path, monkeypatch, step):
    settings = settings_with_dataset(tmp_path, **IMPATIENT)
    with killed_in_step(monkeypatch, step):
        sft.train_sft(settings)
    sft.train_sft(settings)
    same_run(paths(stopped).run_dir, paths(settings).run_dir)


def test_what_cannot_be_decided_is_refused_before_training(tmp_path):
    settings = settings_with_dataset(tmp_path, sft_checkpoint="answers", sft_eval_answers=0)
    with pytest.raises(UserError, match="--sft-checkpoint answers: no validation request is answered"):
        sft.train_sft(settings)
    rows = [row for row in read_rows(paths(settings).dataset, DatasetRow) if row.split == "train"]
    write_rows(paths(settings).corpus, build_rows(rows, "none")[0])
    with pytest.raises(UserError, match="--sft-patience: there is no validation row"):
        sft.train_sft(settings.changed(sft_checkpoint="last", sft_patience=1))
    assert not (paths(settings).run_dir / "training_metrics.jsonl").exists()
