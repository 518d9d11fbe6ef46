"""A run of the tiny student whose adapter can be exported: a random LoRA that changes its answers."""

from __future__ import annotations

import json
from pathlib import Path

import gguf_files
import tiny
import torch

from schema_student.core.jsonl import write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import Settings
from schema_student.student.loading import attach_adapter, load_student, save_adapter

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def dataset_row(i: int, split: str = "test_seen") -> dict:
    row = {"schema_id": "s", "schema_json": json.dumps(SCHEMA), "query": f"number {i}", "current_date": "2026-01-31"}
    return {**row, "ast_json": json.dumps({"n": i}), "is_valid": True, "split": split, "teacher_model": "me"}


def write_adapter(folder: Path, settings: Settings, scale: float = 0.3) -> Path:
    """Save a LoRA of the settings' base whose B is random, not zero; or all weights, moved a little."""
    student = attach_adapter(load_student(settings), settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, weight in student.model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=scale)
            elif settings.lora.fine_tuning == "full":
                weight.data += torch.randn(weight.shape) * scale / 10
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(folder, student)
    return folder


def save_base(folder: Path, template: str = tiny.CHAT_TEMPLATE) -> Path:
    """Save the tiny model with a tokenizer that llama.cpp has as well: byte-level, with one merge, cut as GPT-2's."""
    from tokenizers import pre_tokenizers

    tokenizer = gguf_files.bpe_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.chat_template = template
    tiny.tiny_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_run(folder: Path, template: str = tiny.CHAT_TEMPLATE, **changes) -> Settings:
    """Write a run "student": its adapter, run_config.json and six test requests; settings that export it."""
    small = {"max_new_tokens": 12, "export_prompts": 4, "max_seq_length": 512, **changes}
    save_base(folder / "base", template)
    settings = tiny.tiny_settings(folder, **small)
    where = paths(settings)
    adapter = write_adapter(where.sft_checkpoint, settings)
    write_json(adapter.parent / "run_config.json", {"stage": "sft", "settings": settings.flat()})
    write_jsonl(where.dataset, [dataset_row(i) for i in range(6)])
    return settings.changed(base_model="auto", max_new_tokens="auto", max_seq_length=4096)
