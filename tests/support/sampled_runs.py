"""Runs of alignment by samples on the tiny student: its SFT, and what each link logs."""

from __future__ import annotations

import json

import tiny
from alignment_runs import sharpen
from training_runs import corpus_rows, metrics, settings_with_corpus

from schema_student.core.jsonl import write_jsonl
from schema_student.core.paths import paths
from schema_student.training import sft
from schema_student.training.alignment import stage

NUMBER = {"type": "integer"}
SMALL = {
    "rl_prompts": 16,
    "rl_samples": 4,
    "rl_batch_size": 2,
    "rl_gradient_accumulation": 2,
    "rl_learning_rate": 0.01,
    "rl_max_steps": 4,
    "rl_eval_every": 2,
    "rl_least_p": 0.0,
    "rl_most_p": 1.0,
    "further_sft_learning_rate": 0.01,
    "further_sft_max_steps": 4,
    "further_sft_batch_size": 4,
    "further_sft_eval_every": 2,
}


def dataset_rows():
    """Requests whose right answer is 3, to learn from and to validate by."""
    head = {"schema_id": "s", "domain": "d", "schema_json": json.dumps(NUMBER), "current_date": "2026-01-31"}
    head |= {"ast_json": "3", "is_valid": True}
    splits = [("alignment", range(24)), ("validation", range(100, 112)), ("test_seen", range(200, 204))]
    return [{**head, "query": f"number {i}", "split": split} for split, numbers in splits for i in numbers]


def student_of_four_numbers(folder):
    """Settings of a student that SFT has taught to answer 0, 1, 2 or 3 by chance, and requests of which 3 is right."""
    sharpen(tiny.save_tiny(folder / "base"))
    corpus = [{**row, "completion": str(i % 4)} for i, row in enumerate(corpus_rows())]
    settings = settings_with_corpus(folder, corpus, sft_max_steps=30, sft_learning_rate=0.03, max_new_tokens=4, **SMALL)
    write_jsonl(paths(settings).dataset, dataset_rows())
    sft.train_sft(settings)
    return settings


def beside(settings, folder, **changes):
    """The same student and requests, aligned into another folder."""
    where = paths(settings)
    place = {"output_dir": str(folder), "data_dir": str(where.dataset.parent), "adapter": str(where.sft_checkpoint)}
    return settings.changed(**place, **changes)


def aligned(settings, name):
    """Rows of the log of metrics: those of steps, and those of validations."""
    stage.train_link(name, settings)
    rows = metrics(paths(settings).link_dir(name))
    return [row for row in rows if "loss" in row], [row for row in rows if "eval_p_truth" in row]
