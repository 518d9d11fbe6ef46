"""Make the embedded student: a base model of 2.6 million parameters that reads schemas, in about five hours on 2 cores.

One schema of `data.draw_group` with several (request, answer) pairs is one packed row, a prompt tree: every pair sees
the schema and itself. Hints in the same tree teach to look a word up in the schema.

    scripts/pretrain_embedded_student.py
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from schema_student.student.prompt_tree import Tree, build_trees, pack_trees, prediction_logps
from schema_student.training.pretraining.data import Glossary, Rng, Words, draw_group

# ------------------------------------------------------------------------------------------------------- packed rows


def endless_batches(tokenizer: Any, recipe: Recipe, begin: int = 0, rank: int = 0) -> Iterator[list[Tree]]:
    """Yield one batch a step, from step `begin` on, the same for the same recipe and process.

    A row is a schema and its pairs; longer ones than recipe.tokens_per_batch are left out.
    """
    from schema_student.student.tokens import encode_completion, encode_prompt

    words, rng = Words(), random.Random(f"{recipe.seed} {begin} {rank}")
    batch: list[Tree] = []
    step = begin
    while True:
        words.hardness = rng.uniform(0.3, 1.0) * min(1.0, step / (recipe.easy_share * recipe.steps))
        ids = []
        for prompt, text, glossary in draw_group(words, rng, recipe.pairs_per_row):
            prompt_ids = encode_prompt(tokenizer, prompt)
            ids.append((prompt_ids, encode_completion(tokenizer, text)))
            ids += find_hints(tokenizer, prompt_ids, glossary)
        (row,) = build_trees(ids, least_share=0.0)
        if len(row.ids) > recipe.tokens_per_batch:
            continue
        if sum(len(tree.ids) for tree in batch) + len(row.ids) > recipe.tokens_per_batch:
            yield batch
            batch, step = [], step + 1
        batch.append(row)


def find_hints(tokenizer: Any, prompt: list[int], glossary: Glossary) -> list[tuple[list[int], list[int]]]:
    """Find, for each label in the request, the prompt up to its end, and the first token of the name behind it.

    Pairs for the same tree, where they cost no token. A name must be found in two steps, from a place in the
    answer to a word of the request, and from there to the schema; neither is of use without the other, and so neither
    is learned. A hint teaches the second step alone, where the word stands; the first then is a copy. docs/LOG.md has
    what it brought.
    """
    parts = {tuple(_encode(tokenizer, label)): _encode(tokenizer, name)[:1] for label, name in glossary.items()}
    lengths = sorted({len(label) for label in parts}, reverse=True)
    marker = _encode(tokenizer, "Request")
    here = max(i for i in range(len(prompt)) if prompt[i : i + len(marker)] == marker) + len(marker)
    hints = []
    while here < len(prompt):
        length = next((n for n in lengths if tuple(prompt[here : here + n]) in parts), 0)
        if length:
            hints.append((prompt[: here + length], parts[tuple(prompt[here : here + length])]))
        here += length or 1
    return hints


@lru_cache(maxsize=100_000)
def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


# ------------------------------------------------------------------------------------------------------- the training


@dataclass(frozen=True)
class Recipe:
    """How the shipped student was made; the card quotes it."""

    steps: int = 24_000
    seed: int = 7
    pairs_per_row: int = 8
    tokens_per_batch: int = 4096  # of one process; a step is one batch of each
    easy_share: float = 0.4  # of the steps, over which hardness rises from 0 to 1
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    warmup_steps: int = 100
    cooldown_share: float = 0.3
    hidden_size: int = 192
    layers: int = 4
    vocabulary: int = 4096


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Compute the rate's factor: linear warm-up, constant, then linear cool-down to a twentieth."""
    cooldown = recipe.steps * recipe.cooldown_share
    return min(1.0, (step + 1) / recipe.warmup_steps, max(0.05, (recipe.steps - step) / cooldown))


def pretrain(recipe: Recipe, out: Path) -> None:
    """Train tokenizer and model from nothing and save them to `out`; writes out/pretraining_log.jsonl.

    Run again with the same recipe, it continues from out/resume.pt. Under torchrun each process trains on batches of
    its own and gradients are averaged: one process a core is faster than one process on all of them.
    """
    import torch
    from torch import distributed

    from schema_student.core.jsonl import append_row, truncate_log
    from schema_student.core.processes import process_count, process_index
    from schema_student.core.progress import Progress

    world, rank = process_count(), process_index()
    if world > 1:
        distributed.init_process_group("gloo")
    torch.manual_seed(recipe.seed)
    tokenizer = _make_tokenizer(recipe, out)
    model, optimizers = _make_model(tokenizer, recipe)
    begin, seen, before = _resume(out / "resume.pt", model, optimizers)
    log = out / "pretraining_log.jsonl"
    if rank == 0:
        truncate_log(log, begin - 1)
    batches = endless_batches(tokenizer, recipe, begin, rank)
    started = time.monotonic() - before
    progress = Progress(range(begin, recipe.steps), unit="step", mininterval=10, disable=rank > 0)
    for step in progress:
        batch = pack_trees(next(batches))
        loss = _train_step(model, optimizers, batch, step, recipe)
        seen += batch["ids"].numel() * world  # the batches of the other processes are about as large
        seconds, last = time.monotonic() - started, step == recipe.steps - 1
        if rank == 0 and (step % 25 == 0 or last):
            append_row(log, {"step": step, "loss": round(loss, 5), "tokens": seen, "seconds": round(seconds, 1)})
            progress.set_postfix(loss=f"{loss:.4f}", tokens_per_s=int(seen / max(seconds, 1e-9)))
        if rank == 0 and (step % 250 == 249 or last):
            save_base(model, tokenizer, out)
            _save(out / "resume.pt", model, optimizers, {"step": step + 1, "tokens": seen, "seconds": seconds})
    if world > 1:
        distributed.destroy_process_group()


def _make_tokenizer(recipe: Recipe, out: Path) -> Any:
    """Make the tokenizer in `out`, by the first process alone, unless it is there; all processes load it."""
    from torch import distributed

    from schema_student.core.processes import is_first_process, process_count
    from schema_student.student.embedded import train_embedded_tokenizer
    from schema_student.student.loading import load_tokenizer

    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer.json").exists() and is_first_process():
        texts = tokenizer_texts(Words(), random.Random(recipe.seed))
        train_embedded_tokenizer(texts, recipe.vocabulary).save_pretrained(out)
    if process_count() > 1:
        distributed.barrier()
    return load_tokenizer(str(out))


def _make_model(tokenizer: Any, recipe: Recipe) -> tuple[Any, list[Any]]:
    """A model of random weights, and its optimizers: Muon for matrices, AdamW for embeddings and norms."""
    import torch

    from schema_student.student.embedded import new_embedded_model

    model = new_embedded_model(tokenizer, recipe.hidden_size, recipe.layers)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return model, [
        torch.optim.Muon(matrices, lr=recipe.muon_lr, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(others, lr=recipe.adamw_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _train_step(model: Any, optimizers: list[Any], batch: dict[str, Any], step: int, recipe: Recipe) -> float:
    """One step on a batch of each process; returns the loss of this one. A loss that is not finite stops the run."""
    import torch

    from schema_student.core.processes import process_count
    from schema_student.training.distributed import average_gradients

    loss = packed_loss(model, batch)
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"loss is {loss.item()} at step {step}")
    loss.backward()
    if process_count() > 1:
        average_gradients(model.parameters())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, rate in zip(optimizers, (recipe.muon_lr, recipe.adamw_lr), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_rate_factor(step, recipe)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.item())


def tokenizer_texts(words: Words, rng: Rng) -> Iterator[str]:
    """Yield what the tokenizer learns from: drawn prompts and completions, and every real word twenty times."""
    for _ in range(4000):
        for prompt, completion, _ in draw_group(words, rng, 3):
            yield from (prompt, completion)
    for pool in words.pools.values():
        yield from pool * 20


def _resume(path: Path, model: Any, optimizers: list[Any]) -> tuple[int, int, float]:
    """Continue from the last save, on fresh data: (next step, tokens seen, seconds spent)."""
    import torch

    if not path.exists():
        return 0, 0, 0.0
    from schema_student.training.checkpoints import read_whole

    with read_whole(path):
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return state["step"], state["tokens"], state["seconds"]


def _save(path: Path, model: Any, optimizers: list[Any], progress: dict[str, Any]) -> None:
    """Save what _resume continues from; atomic."""
    import torch

    state = {"model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers]}
    torch.save(state | progress, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def packed_loss(model: Any, batch: dict[str, Any]) -> Any:
    """Compute the mean cross-entropy of predicted tokens (nats), forward in bfloat16."""
    import torch

    with torch.autocast("cpu", dtype=torch.bfloat16):
        return -prediction_logps(model, batch).mean()


def save_base(model: Any, tokenizer: Any, out: Path) -> None:
    """Save weights in bfloat16 (safetensors), configuration and tokenizer, as `from_pretrained` reads them."""
    import copy

    import torch

    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
