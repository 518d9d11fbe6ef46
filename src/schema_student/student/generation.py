"""Decode many prompts quickly: the keys and values of a shared schema are computed once, its requests as one batch.

Used by evaluation (greedy) and pairs (sampled). Rows of a batch differ in length: each token has its own position, and
attention is masked by position, so that padding is never seen and a sliding window slides over tokens, not columns.

Shapes: B rows, G groups of rows that share a prefix, H heads of keys, L columns of the cache, T new tokens, D head,
V vocabulary.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers.cache_utils import Cache, DynamicLayer

from schema_student.core.progress import Progress
from schema_student.student.attention import use_attention
from schema_student.student.prompt_tree import shared_length
from schema_student.student.tokens import encode_completion, encode_prompt

COLUMNS = 128  # the cache grows by this many columns at a time
COMPACT_BELOW = 0.75  # finished rows leave the batch when fewer than this share of it is still being written


class TextGenerator(Protocol):
    """A model that writes text, and its tokenizer: what generation needs of a student."""

    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class Generation:
    """One answer: its text without the end of turn, whether it ended by itself, and its share of its batch's time."""

    text: str
    tokens: int
    finished: bool
    seconds: float


def generate(
    student: TextGenerator,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    progress: str | Progress = "",
) -> list[list[Generation]]:
    """Generate `samples` answers to each prompt, in the order given; temperature 0 is greedy.

    A sample depends on (seed, prompt, number of the sample), never on what shares its batch.
    `progress` names a new progress bar, or is one that counts answers.
    """
    prompt_ids = [encode_prompt(student.tokenizer, prompt) for prompt in prompts]
    rows = [Row(ids, _row_seed(seed, ids, sample)) for ids in prompt_ids for sample in range(samples)]
    order = sorted(range(len(rows)), key=lambda i: (rows[i].prompt_ids, i))  # neighbors share the longest prefixes
    stop_ids = find_stop_ids(student)
    named = progress if isinstance(progress, str) else ""
    bar = (
        Progress(total=len(rows), desc=named, unit="answer", disable=not named)
        if isinstance(progress, str)
        else progress
    )
    answers: list[Any] = [None] * len(rows)
    was_training = student.model.training
    student.model.eval()
    tokens, started = 0, time.monotonic()
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        batch_started = time.monotonic()
        decoded = decode([rows[i] for i in batch], student.model, stop_ids, max_new_tokens, temperature, bar)
        seconds = (time.monotonic() - batch_started) / len(batch)
        for i, new_ids in zip(batch, decoded, strict=True):
            answers[i] = _answer(new_ids, stop_ids, student.tokenizer, seconds)
        tokens += sum(map(len, decoded))
        bar.set_postfix_str(f"{tokens / (time.monotonic() - started):,.0f} tokens/s")
    if isinstance(progress, str):
        bar.close()
    student.model.train(was_training)
    return [answers[i * samples : (i + 1) * samples] for i in range(len(prompts))]


def find_stop_ids(student: TextGenerator) -> frozenset[int]:
    """Find the tokens that end an answer: the one that SFT teaches, and those that tokenizer and model name."""
    ends = [encode_completion(student.tokenizer, "{}")[-1]]
    for named in (student.tokenizer.eos_token_id, student.model.generation_config.eos_token_id):
        ends += named if isinstance(named, list) else [] if named is None else [named]
    return frozenset(ends)


def _row_seed(seed: int, prompt_ids: list[int], sample: int) -> int:
    return int.from_bytes(hashlib.sha256(repr((seed, sample, prompt_ids)).encode()).digest()[:8], "big")


def _answer(new_ids: list[int], stop_ids: frozenset[int], tokenizer: Any, seconds: float) -> Generation:
    finished = bool(new_ids) and new_ids[-1] in stop_ids
    text = tokenizer.decode(new_ids[:-1] if finished else new_ids, skip_special_tokens=True)
    return Generation(text, len(new_ids), finished, seconds)


# Decoding one batch


@dataclass(frozen=True)
class Row:
    """A prompt to continue, and the seed of its own draws."""

    prompt_ids: list[int]
    seed: int = 0


def decode(
    rows: Sequence[Row],
    model: Any,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    bar: Any = None,
) -> list[list[int]]:
    """Decode new token ids of each row, the stop id included; neighbors that share a prefix share its work."""
    use_attention(model)
    with torch.inference_mode():
        batch = _Batch([row.prompt_ids for row in rows], model)
        return _decode(rows, batch, stop_ids, max_new_tokens, temperature, bar)


def _decode(
    rows: Sequence[Row], batch: _Batch, stop_ids: frozenset[int], max_new_tokens: int, temperature: float, bar: Any
) -> list[list[int]]:
    draws = [random.Random(row.seed) for row in rows]
    written: list[list[int]] = [[] for _ in rows]
    unfinished = set(range(len(rows)))
    live = list(range(len(rows)))  # which row each row of the batch is; finished ones stay until enough have finished
    logits_BV = batch.read_prompts()
    for step in range(max_new_tokens):
        next_ids = _choose(logits_BV, temperature, [draws[row] for row in live])
        for row, token in zip(live, next_ids, strict=True):
            if row in unfinished:
                written[row].append(token)
                if token in stop_ids or step == max_new_tokens - 1:
                    unfinished.remove(row)
                    if bar is not None:
                        bar.update(1)
        if not unfinished:
            break
        if len(unfinished) <= COMPACT_BELOW * len(live):
            kept = [i for i, row in enumerate(live) if row in unfinished]
            batch.keep(torch.tensor(kept))
            live, next_ids = [live[i] for i in kept], [next_ids[i] for i in kept]
        logits_BV = batch.write(next_ids)
    return written


def _choose(logits_BV: torch.Tensor, temperature: float, draws: list[random.Random]) -> list[int]:
    """The likeliest token, or the one at which the cumulated probabilities pass the row's own uniform draw."""
    if temperature == 0:
        return logits_BV.argmax(-1).tolist()
    cumulated_BV = torch.softmax(logits_BV.double() / temperature, -1).cumsum(-1)
    uniform_B = torch.tensor([draw.random() for draw in draws], dtype=torch.float64, device=logits_BV.device)
    chosen_B = torch.searchsorted(cumulated_BV, (uniform_B * cumulated_BV[:, -1])[:, None], right=True)[:, 0]
    return chosen_B.clamp(max=logits_BV.shape[-1] - 1).tolist()


def shared_prefixes(prompts: Sequence[list[int]]) -> Iterator[tuple[int, int, int]]:
    """Find (begin, end, tokens) of neighbors whose common prefix is half of each or more; it ends before their last.

    >>> list(shared_prefixes([[1, 2, 3], [1, 2, 4], [9, 8]]))
    [(0, 2, 2), (2, 3, 1)]
    """
    begin = 0
    while begin < len(prompts):
        first, end = prompts[begin], begin + 1
        shared = len(first) - 1
        while end < len(prompts):
            common = min(shared_length(first, prompts[end]), shared, len(prompts[end]) - 1)
            if 2 * common < max(len(first), len(prompts[end])):
                break
            shared, end = common, end + 1
        yield begin, end, shared
        begin = end


class _Batch:
    """Rows being written; columns: a group's prefix (padded on the right), the rest (on the left), new tokens."""

    def __init__(self, prompts: Sequence[list[int]], model: Any):
        self.prompts, self.model = prompts, model
        self.config = model.config.get_text_config()
        self.cache = Cache(layer_class_to_replicate=_GrowingLayer)
        self.position_BL = torch.empty(0, 0, dtype=torch.long)  # of the token in each column; -1 is padding

    def read_prompts(self) -> torch.Tensor:
        """Read a shared prefix once, then the rest of each prompt; logits (B, V) of the token after it."""
        groups = list(shared_prefixes(self.prompts))
        self.position_BL = torch.empty(len(groups), 0, dtype=torch.long)
        prefixes = [self.prompts[begin][:shared] for begin, _, shared in groups]
        if any(prefixes):
            ids_GL, column_GL = _pad(prefixes, left=False)
            self._forward(ids_GL, column_GL)
        self.keep(torch.tensor([g for g, (begin, end, _) in enumerate(groups) for _ in range(begin, end)]))
        starts = [shared for begin, end, shared in groups for _ in range(begin, end)]
        ids_BT, column_BT = _pad([ids[start:] for ids, start in zip(self.prompts, starts, strict=True)], left=True)
        return self._forward(ids_BT, torch.where(column_BT >= 0, column_BT + torch.tensor(starts)[:, None], -1))

    def write(self, next_ids: list[int]) -> torch.Tensor:
        """Write one more token in every row; logits of the one after it."""
        return self._forward(torch.tensor(next_ids)[:, None], self.position_BL.amax(-1, keepdim=True) + 1)

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may be named several times."""
        self.position_BL = self.position_BL[rows]
        for layer in self.cache.layers:
            layer.batch_select_indices(rows.to(self.model.device))

    def _forward(self, ids_BT: torch.Tensor, position_BT: torch.Tensor) -> torch.Tensor:
        self.position_BL = torch.cat([self.position_BL, position_BT], 1)
        output = self.model(
            input_ids=ids_BT.to(self.model.device),
            attention_mask=self._masks(position_BT),
            position_ids=position_BT.clamp(min=0).to(self.model.device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def _masks(self, position_BT: torch.Tensor) -> Any:
        """What each new token may see, by kind of layer: what came before it, or of that what its window holds."""
        distance_BTL = position_BT[:, :, None] - self.position_BL[:, None, :]
        seen_BTL = (distance_BTL >= 0) & (self.position_BL >= 0)[:, None, :]
        # Padding sees itself: a row of the mask that allows nothing would make NaN of what it can reach.
        seen_BTL[:, :, -position_BT.shape[1] :] |= torch.eye(position_BT.shape[1], dtype=torch.bool)
        layer_types = getattr(self.config, "layer_types", None)
        if not layer_types:
            return seen_BTL[:, None].to(self.model.device)
        masks = {"full_attention": seen_BTL}
        if "sliding_attention" in layer_types:
            masks["sliding_attention"] = seen_BTL & (distance_BTL < self.config.sliding_window)
        return {kind: mask_BTL[:, None].to(self.model.device) for kind, mask_BTL in masks.items()}


def _pad(sequences: list[list[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids in one tensor, and the place of each in its own sequence, -1 for padding."""
    width = max(map(len, sequences))
    gaps = [width - len(ids) for ids in sequences]
    ids = [[0] * gap + ids if left else ids + [0] * gap for ids, gap in zip(sequences, gaps, strict=True)]
    places = [list(range(width - gap)) for gap in gaps]
    padded = [[-1] * gap + row if left else row + [-1] * gap for row, gap in zip(places, gaps, strict=True)]
    return torch.tensor(ids), torch.tensor(padded)


class _GrowingLayer(DynamicLayer):
    """Every key and value (B, H, L, D), in buffers that grow by COLUMNS; sliding windows are the mask's work."""

    length = 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        end = self.length + key_states.shape[2]
        if self.length == 0:
            self.keys, self.values, self.is_initialized = key_states[:, :, :0], value_states[:, :, :0], True
        if end > self.keys.shape[2]:
            self.keys, self.values = self._grown(self.keys, end), self._grown(self.values, end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grown(self, buffer: torch.Tensor, end: int) -> torch.Tensor:
        rows, heads, _, head = buffer.shape
        grown = buffer.new_zeros(rows, heads, end + COLUMNS, head)
        grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown
