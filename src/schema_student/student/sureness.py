"""Measure how sure a student was of an answer: its log-probability, and the tokens that it was least sure of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schema_student.student.tokens import Turns, encode_prompt

if TYPE_CHECKING:
    from schema_student.student.generation import TextGenerator

LEAST_SURE = 5  # tokens that are named
LIKELY = math.log(0.5)  # a greater log p of every token of an answer: it is what greedy decoding writes


@dataclass(frozen=True)
class UnsureToken:
    """A token of an answer, its probability, and the other token that was the likeliest in its place."""

    place: int  # in the answer, in tokens
    token: str
    probability: float
    other: str
    other_probability: float


@dataclass(frozen=True)
class Sureness:
    """The natural logarithm of an answer's probability, its end of turn included, and the least sure tokens first."""

    log_p: float
    least_sure: tuple[UnsureToken, ...]


def measure_sureness(student: TextGenerator, prompt: str | Turns, new_ids: Sequence[int]) -> Sureness:
    """Measure the probabilities of the tokens that a student wrote to a prompt, as it decodes without constraints."""
    import torch

    ids = torch.tensor([[*encode_prompt(student.tokenizer, prompt), *new_ids]], device=student.model.device)
    with torch.inference_mode():
        logits_TV = student.model(input_ids=ids, logits_to_keep=len(new_ids) + 1).logits[0, :-1].float()
    p_TV = torch.softmax(logits_TV, -1)
    written_T1 = torch.tensor(list(new_ids), device=p_TV.device)[:, None]
    p_T = p_TV.gather(1, written_T1)[:, 0]
    log_p = float(torch.log_softmax(logits_TV, -1).gather(1, written_T1).sum())
    others = p_TV.scatter(1, written_T1, 0.0).max(-1)
    decode = student.tokenizer.decode
    least = [
        UnsureToken(
            i,
            decode(new_ids[i : i + 1]),
            round(float(p_T[i]), 4),
            decode([int(others.indices[i])]),
            round(float(others.values[i]), 4),
        )
        for i in p_T.argsort()[:LEAST_SURE].tolist()
    ]
    return Sureness(round(log_p, 4), tuple(least))
