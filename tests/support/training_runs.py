"""Runs of SFT and DPO on the tiny student that take seconds: their rows, their settings, and what they leave."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import torch

from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import Settings
from schema_student.core.stamps import beside
from schema_student.student import batching
from schema_student.training import sft
from schema_student.training.loop import TrainingLoop
from schema_student.training.trl_trainers import TrlLoop

SFT_STEPS = 6


def corpus_rows(count: int = 12, validation: int = 4) -> list[dict]:
    def row(i: int, split: str) -> dict:
        completion = json.dumps({"n": i}, separators=(",", ":"))
        return {
            "schema_id": "s",
            "domain": "d",
            "prompt": f"number {i}",
            "completion": completion,
            "is_valid": True,
            "split": split,
        }

    return [row(i, "train") for i in range(count)] + [row(100 + i, "validation") for i in range(validation)]


def settings_with_corpus(folder: Path, rows: list[dict] | None = None, **changes):
    settings = tiny.tiny_settings(folder, **{"sft_max_steps": SFT_STEPS, "sft_learning_rate": 0.01, **changes})
    write_jsonl(paths(settings).corpus, corpus_rows() if rows is None else rows)
    return settings


def adapter_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(checkpoint / "adapter_model.safetensors")


def metrics(run_dir: Path) -> list[dict]:
    rows = read_jsonl(run_dir / "training_metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "eval_runtime"} for row in rows]


def same_run(a: Path, b: Path) -> None:
    assert metrics(a) == metrics(b)
    ours, theirs = adapter_weights(a / "checkpoint-final"), adapter_weights(b / "checkpoint-final")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


STAMPED = ("settings", "seed", "inputs", "base_digest", "processes", "workers")


def unfinish(run_dir: Path) -> None:
    """Leave a finished run as a kill before its end does: begun by its stamp, not finished."""
    meta = read_json(beside(run_dir, "meta"))
    write_json(beside(run_dir, "partial"), {name: meta[name] for name in STAMPED if name in meta})
    beside(run_dir, "meta").unlink()


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
# A run of DPO of six steps: long enough to save, validate and go on.
SHORT = {"dpo_max_steps": 6, "dpo_eval_every": 3, "dpo_batch_size": 4, "beta_warmup": 2}
DPO_STEPS = 14  # longer than the controller's warm-up


def pair_rows(count: int = 8, held_out: int = 2) -> list[dict]:
    def row(i: int) -> dict:
        head = {"prompt": f"number {i}", "chosen": json.dumps({"n": i}), "rejected": json.dumps({"m": str(i)})}
        tail = {"schema_id": "s", "chosen_rank": 5, "rejected_rank": 2, "why": "m required", "source": "mutation"}
        return {**head, **tail, "split": "train" if i < count else "validation"}

    return [row(i) for i in range(count + held_out)]


def dataset_rows() -> list[dict]:
    head = {
        "schema_id": "s",
        "domain": "d",
        "schema_json": json.dumps(SCHEMA),
        "current_date": "2026-01-31",
        "is_valid": True,
    }
    rows = [("validation", 3), ("validation", 4), ("test_unseen", 5)]
    return [{**head, "query": f"number {i}", "ast_json": json.dumps({"n": i}), "split": split} for split, i in rows]


def settings_with_pairs(folder: Path, **changes) -> Settings:
    small = {
        "sft_max_steps": 2,
        "dpo_max_steps": DPO_STEPS,
        "dpo_eval_every": 5,
        "dpo_learning_rate": 0.01,
        "max_new_tokens": 16,
    }
    settings = settings_with_corpus(folder, **{**small, **changes})
    write_jsonl(paths(settings).pairs, pair_rows())
    write_jsonl(paths(settings).dataset, dataset_rows())
    if not paths(settings).sft_checkpoint.exists():
        sft.train_sft(settings)
    return settings


def computed_tokens(sequences, trees):
    """Tokens that the model reads of a batch, padding too."""
    batch = batching.collate(sequences, 0, trees)
    return batch["tree"]["ids"].numel() if trees else batch["input_ids"].numel()


@contextmanager
def killed_in_step(monkeypatch, step: int):
    """Within it, training ends as by Ctrl-C in the given optimizer step: after its backward pass, before its update."""
    clip = TrainingLoop.clip_gradients

    def killed(self, number, names):
        if number == step:
            raise KeyboardInterrupt
        return clip(self, number, names)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "clip_gradients", killed)
        with pytest.raises(KeyboardInterrupt):
            yield


@contextmanager
def killed_at_record(monkeypatch, step: int):
    """Within it, a run by trl ends as by Ctrl-C where the given step would be logged."""
    record = TrlLoop.record_step

    def killed(self, number, logs):
        if number == step:
            raise KeyboardInterrupt
        record(self, number, logs)

    with monkeypatch.context() as patch:
        patch.setattr(TrlLoop, "record_step", killed)
        with pytest.raises(KeyboardInterrupt):
            yield
