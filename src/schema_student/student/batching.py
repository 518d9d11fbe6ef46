"""Encode examples, plan which of them share a batch, and compute the log-probabilities of a batch.

A batch is prompt trees where the model takes them (prompt_tree.why_unsupported), else padded rows.

Shapes: B sequences, P columns of prompt, C of completion, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting

from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.settings import ResolvedSettings
from schema_student.core.tally import Tally
from schema_student.student import prompt_tree
from schema_student.student.tokens import encode_completion, encode_prompt, find_length_fault


@dataclass(frozen=True)
class Ids:
    """A prompt and its completion as token ids; only the completion is supervised."""

    prompt_ids: list[int]
    completion_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def tokens(self) -> list[int]:
        """Return the whole sequence."""
        return self.prompt_ids + self.completion_ids


def encode(tokenizer: Any, prompt: str | list[dict[str, Any]], completion: str, **context: Any) -> Ids:
    """Encode a prompt, what stands beside it (tools) and its completion by the functions that generation uses."""
    return Ids(encode_prompt(tokenizer, prompt, **context), encode_completion(tokenizer, completion))


def find_fault(sequence: Ids, settings: ResolvedSettings) -> str:
    """Say why a sequence cannot be trained on whole; "" where it can."""
    return find_length_fault(len(sequence.prompt_ids), len(sequence.completion_ids), settings)


def keep_whole(fault: str, where: str, tally: Tally, settings: ResolvedSettings) -> bool:
    """Return whether a sequence has no fault; one with a fault is counted, or refused where `overlong` says so."""
    if fault and settings.optimizer.overlong == "refuse":
        raise UserError(
            f"{where}: {fault}; raise that setting, shorten the row, or set --overlong drop to leave such rows out"
        )
    if fault:
        tally.add(fault, where)
    return not fault


def explain_nothing(tally: Tally, otherwise: str) -> str:
    """Advise where no sequence is left to train on: raise the limit that all of them exceed, or else."""
    said = ", ".join(f"{count} {fault}" for fault, count in tally.counts.items())
    return f"left out: {said}; raise that setting" if said else otherwise


def collate(sequences: Sequence[Ids], pad_id: int, trees: bool = False) -> dict[str, Any]:
    """Collate one batch: completion_ids and completion_mask (B, C), and what the model reads.

    With `trees` that is `tree`, where what several rows begin with (their schema, a pair's prompt) stands once. Else
    input_ids, attention_mask and position_ids (B, P + C): prompts padded on the left and completions on the right, so
    that all completions begin in one column.
    """
    P, C = max(len(s.prompt_ids) for s in sequences), max(len(s.completion_ids) for s in sequences)
    batch: dict[str, Any] = {
        "completion_ids": torch.tensor([_pad([], s.completion_ids, 0, C, pad_id) for s in sequences]),
        "completion_mask": torch.tensor([_pad([], [1] * len(s.completion_ids), 0, C, 0) for s in sequences]),
    }
    if trees:
        built = prompt_tree.build_trees([(s.prompt_ids, s.completion_ids) for s in sequences])
        return batch | {"tree": prompt_tree.pack_trees(built)}
    mask = torch.tensor([_pad([1] * len(s.prompt_ids), [1] * len(s.completion_ids), P, C, 0) for s in sequences])
    return batch | {
        "input_ids": torch.tensor([_pad(s.prompt_ids, s.completion_ids, P, C, pad_id) for s in sequences]),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
    }


def _pad(left: list[int], right: list[int], P: int, C: int, pad: int) -> list[int]:
    return [pad] * (P - len(left)) + left + right + [pad] * (C - len(right))


def completion_logps(model: Any, batch: dict[str, Any], autocast: torch.dtype | None = None) -> torch.Tensor:
    """Compute log p of each completion token (B, C), 0 where padded; other positions have no logits."""
    completion_ids = batch["completion_ids"]
    # Autocast would undo LoRA's own cast of its inputs to float32: a sixth of a step, for the same values (with
    # dropout for rounded ones).
    uncast = disable_input_dtype_casting(model, active=autocast is not None)
    with torch.autocast(completion_ids.device.type, autocast) if autocast else nullcontext(), uncast:
        if "tree" in batch:
            return prompt_tree.packed_logps(model, batch["tree"], *completion_ids.shape)
        logits_BCV = completion_logits(model, batch)
    logps_BC = -torch.nn.functional.cross_entropy(logits_BCV.transpose(1, 2), completion_ids, reduction="none")
    return logps_BC * batch["completion_mask"]


def completion_states(
    model: Any, batch: dict[str, Any], autocast: torch.dtype | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute completion_logps (B, C), and the hidden state before each completion token (B, C, D)."""
    completion_ids = batch["completion_ids"]
    uncast = disable_input_dtype_casting(model, active=autocast is not None)
    with torch.autocast(completion_ids.device.type, autocast) if autocast else nullcontext(), uncast:
        if "tree" in batch:
            return prompt_tree.packed_states(model, batch["tree"], *completion_ids.shape)
        keep = completion_ids.shape[1] + 1
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
        made = model(**inputs, use_cache=False, logits_to_keep=keep, output_hidden_states=True)
    logits_BCV, hidden_BCD = made.logits[:, -keep:-1].float(), made.hidden_states[-1][:, -keep:-1]
    logps_BC = -torch.nn.functional.cross_entropy(logits_BCV.transpose(1, 2), completion_ids, reduction="none")
    return logps_BC * batch["completion_mask"], hidden_BCD


def completion_logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Compute the logits of each completion token of a padded batch (B, C, V), float32."""
    keep = batch["completion_ids"].shape[1] + 1  # the column before a completion predicts its first token
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    return model(**inputs, use_cache=False, logits_to_keep=keep).logits[:, -keep:-1].float()


@dataclass(frozen=True)
class Planner:
    """Which rows share a batch; every pass over the rows has each of them once.

    A row is the sequences that must share a batch: one, or a pair's two. A batch ends at `batch_size` rows or before
    `batch_tokens` tokens, as `count_tokens` counts them. `together` rows of one key (a schema) follow each other, and
    rows of like length share a batch (sorted within windows of 16 batches), so that little is padded where rows are
    padded. Everything else is shuffled by the seed, anew in each pass.
    """

    rows: Sequence[Sequence[Ids]]
    keys: Sequence[str]
    batch_size: int
    batch_tokens: int
    together: int
    seed: int
    trees: bool

    def plan(self, count: int) -> list[list[int]]:
        """Plan `count` batches of indices, as many passes as that takes."""
        rng = random.Random(f"batches {self.seed}")
        plan: list[list[int]] = []
        while len(plan) < count:
            plan += self._plan_pass(rng)
        return plan[:count]

    def count(self) -> int:
        """Count the batches of the first pass."""
        return len(self._plan_pass(random.Random(f"batches {self.seed}")))

    def _plan_pass(self, rng: random.Random) -> list[list[int]]:
        lengths = [sum(map(len, row)) for row in self.rows]
        runs = _cut_runs(lengths, self.keys, self.together, rng)
        window = max(1, 16 * self.batch_size // self.together)
        order: list[int] = []
        for start in range(0, len(runs), window):
            for run in sorted(runs[start : start + window], key=lambda run: max(lengths[i] for i in run)):
                order += run
        batches = cut_batches(self.rows, order, self.batch_size, self.batch_tokens, self.trees)
        rng.shuffle(batches)
        return batches


def cut_batches(
    rows: Sequence[Sequence[Ids]], order: Iterable[int], batch_size: int, batch_tokens: int, trees: bool
) -> list[list[int]]:
    """Cut rows into batches in the given order, as large as the limits allow; a row above them is a batch by itself."""
    batches: list[list[int]] = []
    for i in order:
        full = not batches or len(batches[-1]) == batch_size
        if full or count_tokens([s for j in [*batches[-1], i] for s in rows[j]], trees) > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def count_tokens(sequences: Sequence[Ids], trees: bool) -> int:
    """Count the tokens that a batch computes: those of its trees, else all columns of the padded rows."""
    if trees:
        return prompt_tree.count_tokens([(s.prompt_ids, s.completion_ids) for s in sequences])
    P, C = max(len(s.prompt_ids) for s in sequences), max(len(s.completion_ids) for s in sequences)
    return len(sequences) * (P + C)


def supports_prompt_trees(model: Any, needs_logits: bool = False) -> bool:
    """Return whether the model's batches are trees; where they are padded, it logs why."""
    # A tree gives the log p of labels, not the logits of all tokens.
    reason = prompt_tree.why_unsupported(model) or ("this beta needs all logits" if needs_logits else "")
    if reason:
        log.info(f"  padded batches, each schema computed again for every row: {reason}")
    return not reason


def takes_trees(model: Any, settings: ResolvedSettings, needs_logits: bool = False) -> bool:
    """Return whether the batches of a run are trees: where the model takes them, and our own loop trains it."""
    return settings.optimizer.trainer == "own" and supports_prompt_trees(model, needs_logits)


def _cut_runs(lengths: Sequence[int], keys: Sequence[str], together: int, rng: random.Random) -> list[list[int]]:
    """All indices, in shuffled runs of up to `together` of one key and of like length (sorted in windows of 4 runs)."""
    by_key: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        by_key.setdefault(key, []).append(i)
    runs = []
    for members in by_key.values():
        rng.shuffle(members)
        for start in range(0, len(members), 4 * together):
            window = sorted(members[start : start + 4 * together], key=lambda i: lengths[i])
            runs += [window[i : i + together] for i in range(0, len(window), together)]
    rng.shuffle(runs)
    return runs


def autocast_dtype(settings: ResolvedSettings, device: torch.device) -> torch.dtype | None:
    """Choose the dtype that training multiplies matrices in: bfloat16, or None for the weights' own.

    "auto" takes bfloat16 where it is faster: on a GPU, and on a CPU that multiplies it natively (1.6 times as fast).
    """
    dtype = settings.loading.dtype
    wanted = dtype in ("bfloat16", "float16") or (dtype == "auto" and multiplies_bfloat16(device))
    return torch.bfloat16 if wanted else None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively: a GPU, and the CPUs that say so."""
    able = torch.cpu.get_capabilities()
    return device.type != "cpu" or any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
