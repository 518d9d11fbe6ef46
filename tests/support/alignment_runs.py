"""Runs of alignment on the tiny student that take seconds: a student that SFT has half taught, and its requests."""

from __future__ import annotations

import json
from pathlib import Path

import tiny
from safetensors.torch import load_file, save_file
from training_runs import SCHEMA, corpus_rows, settings_with_corpus

from schema_student.core.jsonl import write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import Settings
from schema_student.training import sft

SMALL = {"expected_reward_max_steps": 6, "expected_reward_batch_size": 4, "expected_reward_eval_every": 3}
SMALL |= {
    "eval_every": 20,
    "save_every": 20,
    "expected_reward_learning_rate": 0.002,
    "sft_max_steps": 30,
    "sft_learning_rate": 0.02,
    "max_new_tokens": 16,
}
ANSWER = '{"n":7}'  # the right one to every request


def dataset_rows() -> list[dict]:
    """Requests to learn from and to validate by, all with the answer that SFT has half learned."""
    head = {"schema_id": "s", "domain": "d", "schema_json": json.dumps(SCHEMA), "current_date": "2026-01-31"}
    head |= {"ast_json": ANSWER, "is_valid": True}
    splits = [("alignment", range(24)), ("validation", range(100, 112)), ("test_seen", range(200, 204))]
    return [{**head, "query": f"number {i}", "split": split} for split, numbers in splits for i in numbers]


def settings_with_requests(folder: Path, **changes) -> Settings:
    """Settings of a run whose SFT student finds the right answers likely, but not yet sure."""
    if not (folder / "base").exists():
        sharpen(tiny.save_tiny(folder / "base"))
    corpus = [{**row, "completion": ANSWER} for row in corpus_rows()]
    settings = settings_with_corpus(folder, corpus, **{**SMALL, **changes})
    write_jsonl(paths(settings).dataset, dataset_rows())
    if not paths(settings).sft_checkpoint.exists():
        sft.train_sft(settings)
    return settings


def sharpen(base: Path) -> None:
    """Scale what the head reads: the tiny base's logits are so small that no LoRA makes a text likely."""
    weights = load_file(base / "model.safetensors")
    (name,) = [name for name in weights if name.endswith("model.norm.weight") or name == "norm.weight"]
    save_file({**weights, name: weights[name] + 30.0}, base / "model.safetensors", metadata={"format": "pt"})
