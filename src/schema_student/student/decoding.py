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
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from schema_student.student.attention import use_attention
from schema_student.student.constraints import Constraint, Guide
from schema_student.student.fused import fuse
from schema_student.student.kept_prompts import KeptPrompts
from schema_student.student.key_values import Prompts, Slots, cut_reading, read_prompts
from schema_student.student.sureness import Chance, measure_chances

COMPACT_BELOW = 0.75  # where no row waits, empty slots are dropped once fewer than this share of them are full
TOGETHER = 32  # tokens that a pass computes in about the time of one: its time is that of reading the weights
GUESSED, TRUSTED = 15, 3  # tokens of a guess, at most and at first
FAMILIAR = 3  # tokens that must have stood before for what followed them to be a guess


@dataclass(frozen=True)
class Row:
    """A prompt to continue, the seed of its own draws, and what its answer has to obey; None: as all rows do."""

    prompt_ids: list[int]
    seed: int = 0
    constraint: Constraint | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None


@dataclass
class Written:
    """What was written to a prompt: new ids, the stop id included, and the row's share of the time that it took."""

    ids: list[int]
    seconds: float
    draws: random.Random
    guide: Guide | None = None
    has_ended: bool = False
    chances: list[Chance] = field(default_factory=list)  # of the ids, where they are measured


def decode(
    rows: Sequence[Row],
    model: Any,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    bar: Any = None,
    others_below: float | None = None,
) -> list[Written]:
    """Continue each row until a stop id or the limit; neighbors that share a prefix share its work.

    `batch_size` rows are written at once: a row that has ended makes room for the next. With `others_below` the
    probability of each token is measured (measure_chances).
    """
    with ready_to_decode(model):
        decoder = Decoder(model, stop_ids, max_new_tokens, batch_size, temperature, bar, others_below=others_below)
        written = [decoder.add(row) for row in rows]
        while decoder.is_busy:
            decoder.step()
    return written


@contextmanager
def ready_to_decode(model: Any) -> Iterator[None]:
    """Prepare a model, in this thread, for what a Decoder does."""
    use_attention(model)
    with _adapter_as_base(model), torch.inference_mode():
        yield


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


class Repetitions:
    """Ids of a row, and where each FAMILIAR ones in a row stood last, to guess what follows the last ones.

    A guess that reaches the end of the ids goes on as they would by repeating themselves.

    >>> Repetitions([7, 1, 2, 3, 9, 1, 2, 3]).guess(6)
    [9, 1, 2, 3, 9, 1]
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._ends: dict[tuple[int, ...], int] = {}
        self._noted = FAMILIAR  # places up to which is noted what stands before them

    def guess(self, count: int) -> list[int]:
        """Guess the next `count` ids by what followed the last FAMILIAR ones before; [] where nothing did."""
        ids, length = self.ids, len(self.ids)
        for end in range(self._noted, length):
            self._ends[tuple(ids[end - FAMILIAR : end])] = end
        self._noted = max(self._noted, length)
        begin = self._ends.get(tuple(ids[-FAMILIAR:]))
        return [] if begin is None else [ids[begin + i % (length - begin)] for i in range(count)]


@dataclass(eq=False)
class _Writing:
    """A row while it is written, with its own limit and temperature.

    `trusted` tokens are guessed at once: one where the last guess was wrong from its first token on, more where it was
    right for longer, as a token of a pass that is guessed wrong has cost its time.
    """

    prompt_ids: list[int]
    written: Written
    max_new_tokens: int
    temperature: float
    trusted: int = TRUSTED
    has_guess: bool = False
    repetitions: Repetitions = field(init=False)

    def __post_init__(self) -> None:
        self.repetitions = Repetitions(self.prompt_ids)

    def guess(self, count: int) -> list[int]:
        """Guess its next tokens; [] where nothing says what they are, and for a sample."""
        known = self.repetitions
        if not self.temperature:
            known.ids += self.written.ids[len(known.ids) - len(self.prompt_ids) :]
        guess = [] if self.temperature else known.guess(count)
        self.has_guess = bool(guess)
        return guess

    def add(self, chosen: list[int], guess: list[int], logits_TV: torch.Tensor, stop_ids: frozenset[int]) -> int:
        """Add what was chosen up to the first token that was guessed otherwise, or to the end; returns how many."""
        written = self.written
        begun = len(written.ids)
        for i, token in enumerate(chosen):
            if written.guide:
                token = written.guide.take(token, logits_TV[i], partial(_choose, self))
            written.ids.append(token)
            written.has_ended = token in stop_ids or len(written.ids) >= self.max_new_tokens
            if written.has_ended or token != (guess[i] if i < len(guess) else None):
                break
        added = len(written.ids) - begun
        if self.has_guess:
            self.trusted = min(GUESSED, 2 * (added - 1) + 1)
        return added


class Decoder:
    """Rows that wait, rows that were read, and rows that are being written, each in its slot.

    Rows may be added between steps. `kept` keeps what prompts begin with beyond the rows themselves.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: frozenset[int],
        max_new_tokens: int,
        batch_size: int,
        temperature: float = 0.0,
        bar: Any = None,
        kept: KeptPrompts | None = None,
        others_below: float | None = None,
    ) -> None:
        self.model, self.bar, self.batch_size, self.kept, self.others_below = model, bar, batch_size, kept, others_below
        self.stop_ids, self.max_new_tokens, self.temperature = stop_ids, max_new_tokens, temperature
        self.waiting: deque[_Writing] = deque()
        self.read: deque[tuple[_Writing, Prompts, int]] = deque()  # rows, and where their prompts were read
        self.live: list[_Writing | None] = []  # the row in each slot; None: it has ended
        self.slots: Slots | None = None
        self.fused = fuse(model)

    def add(self, row: Row) -> Written:
        """Let a row wait for its turn; returns what will be written to it."""
        guide = row.constraint.start() if row.constraint else None
        written = Written([], 0.0, random.Random(row.seed), guide)
        limit = self.max_new_tokens if row.max_new_tokens is None else row.max_new_tokens
        temperature = self.temperature if row.temperature is None else row.temperature
        self.waiting.append(_Writing(row.prompt_ids, written, limit, temperature))
        return written

    @property
    def is_busy(self) -> bool:
        """Return whether there are rows that have not ended."""
        return bool(self.waiting or self.read) or any(row is not None for row in self.live)

    def step(self) -> None:
        """Read prompts into the slots that are free, then write a token, or several, in each slot."""
        self._fill_slots()
        if self.slots and any(row is not None for row in self.live):
            self._write(self.slots)
        if any(row is not None for row in self.live):
            self._drop_empty_slots()
        else:
            self.live, self.slots = [], None

    def drop(self, unwanted: Written) -> None:
        """Write no more of a row."""
        unwanted.has_ended = True
        self.waiting = deque(row for row in self.waiting if row.written is not unwanted)
        self.read = deque(each for each in self.read if each[0].written is not unwanted)
        self.live = [None if row is None or row.written is unwanted else row for row in self.live]

    def _fill_slots(self) -> None:
        """Put the next rows into free slots: those whose rows have ended, and new ones up to the size of a batch."""
        self._add_slots()
        for slot, row in enumerate(self.live):
            if row is None and self._read_more():
                row, prompts, number = self.read.popleft()
                if self.slots is None:
                    self.slots = Slots(self.model, len(self.live), prompts, self.fused)
                self.slots.put(slot, prompts, number)
                self.live[slot] = row

    def _add_slots(self) -> None:
        live = sum(row is not None for row in self.live)
        more = min(self.batch_size, live + len(self.read) + len(self.waiting)) - len(self.live)
        if more > 0:
            self.live += [None] * more
            if self.slots:
                self.slots.add(more)

    def _read_more(self) -> bool:
        """Read prompts where none is ready; returns whether there is a row to put into a slot."""
        while not self.read and self.waiting:
            started = time.monotonic()
            prompts = [row.prompt_ids for row in self.waiting]
            prefix, count = self.kept.find(prompts) if self.kept else (None, cut_reading(prompts))
            rows = [self.waiting.popleft() for _ in range(count)]
            read = read_prompts(self.model, prompts[:count], prefix)
            if self.kept:
                self.kept.add(prompts[0], read, prefix)
            self._add_tokens(rows, read.logits_NV[:, None], [[]] * len(rows), started)
            self.read += [(row, read, number) for number, row in enumerate(rows) if not row.written.has_ended]
        return bool(self.read)

    def _write(self, slots: Slots) -> None:
        """Write the last token of each row with a guess of what follows, and choose what does follow."""
        started = time.monotonic()
        guesses = self._guess()
        last = [[0] if row is None else row.written.ids[-1:] for row in self.live]
        logits_BTV = slots.write([[*ids, *guess] for ids, guess in zip(last, guesses, strict=True)])
        kept = [slot for slot, row in enumerate(self.live) if row is not None]
        rows = [row for row in self.live if row is not None]
        logits_NTV = logits_BTV if len(kept) == len(self.live) else logits_BTV[kept]
        counts = self._add_tokens(rows, logits_NTV, [guesses[slot] for slot in kept], started)
        added = dict(zip(kept, counts, strict=True))
        slots.advance([added.get(slot, 0) for slot in range(len(self.live))])
        self.live = [None if row is None or row.written.has_ended else row for row in self.live]

    def _guess(self) -> list[list[int]]:
        """Guess what follows in each slot, as many tokens in all; none where a pass is full, and for samples."""
        trusted = max((row.trusted for row in self.live if row and not row.temperature), default=0)
        count = min(trusted, GUESSED, TOGETHER // len(self.live) - 1)
        if count < 1:
            return [[]] * len(self.live)
        found = [row.guess(count) if row else [] for row in self.live]
        return [guess or [0] * count for guess in found] if any(found) else found

    def _add_tokens(
        self, rows: Sequence[_Writing], logits_NTV: torch.Tensor, guesses: Sequence[list[int]], started: float
    ) -> list[int]:
        """Add each row's next token, and those after it as long as the guess was right; returns how many."""
        counts = [
            row.add(chosen, guess, logits_TV, self.stop_ids)
            for row, chosen, guess, logits_TV in zip(
                rows, _choose_all(rows, logits_NTV), guesses, logits_NTV, strict=True
            )
        ]
        if self.others_below is not None:
            _measure(rows, counts, logits_NTV, self.others_below)
        seconds = (time.monotonic() - started) / len(rows)
        for row in rows:
            row.written.seconds += seconds
        if self.bar is not None:
            self.bar.update(sum(row.written.has_ended for row in rows))
        return counts

    def _drop_empty_slots(self) -> None:
        """Compute no slots for nothing, once no row waits for them: they are dropped a quarter at a time."""
        kept = [slot for slot, row in enumerate(self.live) if row is not None]
        waits = self.read or self.waiting
        if self.slots and not waits and len(kept) <= COMPACT_BELOW * len(self.live):
            self.slots.keep(kept)
            self.live = [self.live[slot] for slot in kept]


def _measure(rows: Sequence[_Writing], counts: Sequence[int], logits_NTV: torch.Tensor, others_below: float) -> None:
    """Note the probabilities of the tokens that were just added, `counts` of each row."""
    whole = all(count == 1 for count in counts)
    added_MV = logits_NTV[:, 0] if whole else torch.cat([logits_NTV[i, :n] for i, n in enumerate(counts)])
    tokens = [token for row, n in zip(rows, counts, strict=True) for token in row.written.ids[-n:]]
    chances = iter(measure_chances(added_MV, tokens, others_below))
    for row, n in zip(rows, counts, strict=True):
        row.written.chances += [next(chances) for _ in range(n)]


def _choose_all(rows: Sequence[_Writing], logits_NTV: torch.Tensor) -> list[list[int]]:
    """Choose each row's next tokens: the likeliest after each place, or one that is drawn after the first."""
    drawn = [i for i, row in enumerate(rows) if row.temperature]
    # The first of equal ones, as argmax, in a third of its time.
    chosen_NT = logits_NTV.max(-1).indices.tolist() if len(drawn) < len(rows) else [[]] * len(rows)
    if drawn:
        temperature_N = torch.tensor([rows[i].temperature for i in drawn], dtype=torch.float64)
        draws = [rows[i].written.draws for i in drawn]
        for i, token in zip(drawn, sample_tokens(logits_NTV[drawn, 0], temperature_N, draws), strict=True):
            chosen_NT[i] = [token]
    return chosen_NT


def _choose(row: _Writing, logits_V: torch.Tensor) -> int:
    """Choose one of the tokens that a grammar allows: the likeliest, or a further draw."""
    if not row.temperature:
        return int(logits_V.argmax())
    return sample_tokens(logits_V[None], row.temperature, [row.written.draws])[0]


def sample_tokens(logits_NV: torch.Tensor, temperature: float | torch.Tensor, draws: list[random.Random]) -> list[int]:
    """Draw the token at which the cumulated probabilities pass the row's own uniform draw; a temperature, or N."""
    temperature_N1 = torch.as_tensor(temperature, dtype=torch.float64, device=logits_NV.device).reshape(-1, 1)
    cumulated_NV = torch.softmax(logits_NV.double() / temperature_N1, -1).cumsum(-1)
    uniform_N = torch.tensor([draw.random() for draw in draws], dtype=torch.float64, device=logits_NV.device)
    chosen_N = torch.searchsorted(cumulated_NV, (uniform_N * cumulated_NV[:, -1])[:, None], right=True)[:, 0]
    return chosen_N.clamp(max=logits_NV.shape[-1] - 1).tolist()
