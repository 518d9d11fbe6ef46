"""Decode many rows quickly: what they begin with is computed once, and a row that has ended makes room for the next.

Where few rows are left, each forward pass also tries a guess of several tokens: what followed the row's last ones where
they stood before, in its prompt or its answer. Greedy decoding keeps of a guess what it would have chosen itself, so
that answers stay what they are, and a row that repeats itself to the limit takes a tenth of the passes.

Shapes: B slots, N rows, T tokens of a pass (the last one, and a guess), V vocabulary.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from schema_student.student.attention import use_attention
from schema_student.student.constraints import Constraint, Guide
from schema_student.student.key_values import Prompts, Slots, cut_reading, read_prompts

COMPACT_BELOW = 0.75  # where no row waits, empty slots are dropped once fewer than this share of them are full
TOGETHER = 32  # tokens that a pass computes in about the time of one: its time is that of reading the weights
GUESSED = 15  # tokens of a guess, at most
FAMILIAR = 3  # tokens that must have stood before for what followed them to be a guess


@dataclass(frozen=True)
class Row:
    """A prompt to continue, the seed of its own draws, and what its answer has to obey."""

    prompt_ids: list[int]
    seed: int = 0
    constraint: Constraint | None = None


@dataclass
class Written:
    """What was written to a prompt: new ids, the stop id included, and the row's share of the time that it took."""

    ids: list[int]
    seconds: float
    draws: random.Random
    guide: Guide | None = None


def decode(
    rows: Sequence[Row],
    model: Any,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    bar: Any = None,
) -> list[Written]:
    """Continue each row until a stop id or the limit; neighbors that share a prefix share its work.

    `batch_size` rows are written at once: a row that has ended makes room for the next.
    """
    use_attention(model)
    with _adapter_as_base(model), torch.inference_mode():
        return _Decoder(rows, model, stop_ids, max_new_tokens, batch_size, temperature, bar).run()


@contextmanager
def _adapter_as_base(model: Any) -> Iterator[None]:
    """Let a LoRA compute in the half precision of its base: casting there and back is a third of a pass."""
    half = model.dtype in (torch.bfloat16, torch.float16)
    weights = [weight for name, weight in model.named_parameters() if half and "lora_" in name]
    kept = [weight.data for weight in weights]
    for weight in weights:
        weight.data = weight.data.to(model.dtype)
    try:
        yield
    finally:
        for weight, data in zip(weights, kept, strict=True):
            weight.data = data


class _Decoder:
    """Rows that wait, rows that were read, and rows that are being written, each in its slot."""

    def __init__(
        self,
        rows: Sequence[Row],
        model: Any,
        stop_ids: frozenset[int],
        max_new_tokens: int,
        batch_size: int,
        temperature: float,
        bar: Any,
    ) -> None:
        self.prompts, self.model, self.bar = [row.prompt_ids for row in rows], model, bar
        self.stop_ids, self.max_new_tokens, self.temperature = stop_ids, max_new_tokens, temperature
        self.written = [
            Written([], 0.0, random.Random(row.seed), row.constraint.start() if row.constraint else None)
            for row in rows
        ]
        self.unread = 0  # the first row that was not read
        self.read: deque[tuple[int, Prompts, int]] = deque()  # row, and where its prompt was read
        self.live: list[int | None] = [None] * min(batch_size, len(rows))  # the row in each slot; None: it has ended
        self.slots: Slots | None = None

    def run(self) -> list[Written]:
        """Write all rows to their ends."""
        self._fill_slots()
        while self.slots and any(row is not None for row in self.live):
            self._write(self.slots)
            self._fill_slots()
            self._drop_empty_slots(self.slots)
        return self.written

    def _fill_slots(self) -> None:
        """Put the next rows into the slots whose rows have ended."""
        for slot, row in enumerate(self.live):
            if row is None and self._read_more():
                row, prompts, number = self.read.popleft()
                if self.slots is None:
                    self.slots = Slots(self.model, len(self.live), prompts)
                self.slots.put(slot, prompts, number)
                self.live[slot] = row

    def _read_more(self) -> bool:
        """Read prompts where none is ready; returns whether there is a row to put into a slot."""
        while not self.read and self.unread < len(self.prompts):
            started = time.monotonic()
            begin = self.unread
            self.unread += cut_reading(self.prompts[begin:])
            rows = range(begin, self.unread)
            prompts = read_prompts(self.model, self.prompts[begin : self.unread])
            self._add_tokens(rows, prompts.logits_NV[:, None], [[]] * len(rows), started)
            self.read += [(row, prompts, row - begin) for row in rows if not self._has_ended(row)]
        return bool(self.read)

    def _write(self, slots: Slots) -> None:
        """Write the last token of each row with a guess of what follows, and choose what does follow."""
        started = time.monotonic()
        guesses = self._guess()
        last = [[0] if row is None else self.written[row].ids[-1:] for row in self.live]
        logits_BTV = slots.write([[*ids, *guess] for ids, guess in zip(last, guesses, strict=True)])
        kept = [slot for slot, row in enumerate(self.live) if row is not None]
        rows = [row for row in self.live if row is not None]
        logits_NTV = logits_BTV if len(kept) == len(self.live) else logits_BTV[kept]
        added = dict(
            zip(rows, self._add_tokens(rows, logits_NTV, [guesses[slot] for slot in kept], started), strict=True)
        )
        slots.advance([0 if row is None else added[row] for row in self.live])
        self.live = [None if row is None or self._has_ended(row) else row for row in self.live]

    def _guess(self) -> list[list[int]]:
        """Guess what follows in each slot, as many tokens in all; none where a pass is full, and for samples."""
        count = min(GUESSED, TOGETHER // len(self.live) - 1)
        if self.temperature or count < 1:
            return [[]] * len(self.live)
        ids = [[] if row is None else [*self.prompts[row], *self.written[row].ids] for row in self.live]
        found = [guess_next(each, count) for each in ids]
        return [guess or [0] * count for guess in found] if any(found) else found

    def _add_tokens(
        self, rows: Sequence[int], logits_NTV: torch.Tensor, guesses: Sequence[list[int]], started: float
    ) -> list[int]:
        """Add each row's next token, and those after it as long as the guess was right; returns how many."""
        written = [self.written[row] for row in rows]
        if self.temperature:
            chosen_NT = [[i] for i in _sample(logits_NTV[:, 0], self.temperature, [each.draws for each in written])]
        else:
            chosen_NT = logits_NTV.max(
                -1
            ).indices.tolist()  # the first of equal ones, as argmax, in a third of its time
        counts = [
            self._add_right(row, chosen, guess, logits_TV)
            for row, chosen, guess, logits_TV in zip(rows, chosen_NT, guesses, logits_NTV, strict=True)
        ]
        seconds = (time.monotonic() - started) / len(rows)
        for each in written:
            each.seconds += seconds
        if self.bar is not None:
            self.bar.update(sum(map(self._has_ended, rows)))
        return counts

    def _add_right(self, row: int, chosen: list[int], guess: list[int], logits_TV: torch.Tensor) -> int:
        """Add what was chosen up to the first token that was guessed otherwise, or to the end; returns how many."""
        written = self.written[row]
        begun = len(written.ids)
        for i, (token, guessed) in enumerate(zip(chosen, [*guess, None], strict=True)):
            if written.guide:
                token = written.guide.take(token, logits_TV[i], partial(self._choose, written.draws))
            written.ids.append(token)
            if token != guessed or self._has_ended(row):
                break
        return len(written.ids) - begun

    def _choose(self, draws: random.Random, logits_V: torch.Tensor) -> int:
        """Choose one of the tokens that a grammar allows: the likeliest, or a further draw."""
        return _sample(logits_V[None], self.temperature, [draws])[0] if self.temperature else int(logits_V.argmax())

    def _has_ended(self, row: int) -> bool:
        ids = self.written[row].ids
        return ids[-1] in self.stop_ids or len(ids) == self.max_new_tokens

    def _drop_empty_slots(self, slots: Slots) -> None:
        """Compute no slots for nothing, once no row waits for them: they are dropped a quarter at a time."""
        kept = [slot for slot, row in enumerate(self.live) if row is not None]
        if kept and len(kept) <= COMPACT_BELOW * len(self.live):
            slots.keep(kept)
            self.live = [self.live[slot] for slot in kept]


def guess_next(ids: Sequence[int], count: int) -> list[int]:
    """Guess the next `count` tokens by what followed the last FAMILIAR ones where they stood last; [] where nowhere.

    A guess that reaches the end of the ids goes on as they would by repeating themselves.

    >>> guess_next([7, 1, 2, 3, 9, 1, 2, 3], 6)
    [9, 1, 2, 3, 9, 1]
    """
    last = ids[-FAMILIAR:]
    for begin in range(len(ids) - FAMILIAR - 1, -1, -1):
        if ids[begin : begin + FAMILIAR] == last:
            period = len(ids) - FAMILIAR - begin
            return [ids[len(ids) - period + i % period] for i in range(count)]
    return []


def _sample(logits_NV: torch.Tensor, temperature: float, draws: list[random.Random]) -> list[int]:
    """Draw the token at which the cumulated probabilities pass the row's own uniform draw."""
    cumulated_NV = torch.softmax(logits_NV.double() / temperature, -1).cumsum(-1)
    uniform_N = torch.tensor([draw.random() for draw in draws], dtype=torch.float64, device=logits_NV.device)
    chosen_N = torch.searchsorted(cumulated_NV, (uniform_N * cumulated_NV[:, -1])[:, None], right=True)[:, 0]
    return chosen_N.clamp(max=logits_NV.shape[-1] - 1).tolist()
