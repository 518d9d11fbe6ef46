"""Tell how sure a student was of an answer: its log-probability, and the tokens that it was least sure of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

LEAST_SURE = 5  # tokens that are named
LIKELY = math.log(0.5)  # a greater log p of every token of an answer: it is what greedy decoding writes


class Chance(NamedTuple):
    """log p (nats) of a token where it was written, and the other token that was the likeliest there, where known."""

    logp: float
    other: int | None = None
    other_logp: float = -math.inf


@dataclass(frozen=True)
class UnsureToken:
    """A token of an answer, its probability, and the other token that was the likeliest in its place, where known."""

    place: int  # in the answer, in tokens
    token: str
    probability: float
    other: str | None = None
    other_probability: float | None = None


@dataclass(frozen=True)
class Sureness:
    """The natural logarithm of an answer's probability, its end of turn included, and the least sure tokens first."""

    log_p: float
    least_sure: tuple[UnsureToken, ...]


def measure_chances(logits_MV: torch.Tensor, tokens: Sequence[int], others_below: float) -> list[Chance]:
    """Measure the probabilities of M tokens at temperature 1, without constraints, by the logits in their places.

    The likeliest other token is looked for where a token's own probability is below `others_below`: that takes half
    the time.
    """
    import torch

    logits_MV = logits_MV.float()
    tokens_M1 = torch.tensor(list(tokens), device=logits_MV.device)[:, None]
    total_M = logits_MV.logsumexp(-1)
    logps_M = logits_MV.gather(1, tokens_M1)[:, 0] - total_M
    unsure = (logps_M.exp() < others_below).nonzero()[:, 0]
    best = logits_MV[unsure].scatter(1, tokens_M1[unsure], -torch.inf).max(-1)
    others = zip(best.indices.tolist(), (best.values - total_M[unsure]).tolist(), strict=True)
    named = dict(zip(unsure.tolist(), others, strict=True))
    return [Chance(logp, *named.get(i, ())) for i, logp in enumerate(logps_M.tolist())]


def summarize_chances(
    tokenizer: Any, ids: Sequence[int], chances: Sequence[Chance], most: int = LEAST_SURE
) -> Sureness:
    """Summarize the probabilities of an answer's tokens: of the whole, and of the `most` least likely ones."""
    least = sorted(range(len(chances)), key=lambda i: chances[i].logp)[:most]
    log_p = math.fsum(chance.logp for chance in chances)
    return Sureness(round(log_p, 4), tuple(_name_token(tokenizer, ids, i, chances[i]) for i in least))


def _name_token(tokenizer: Any, ids: Sequence[int], place: int, chance: Chance) -> UnsureToken:
    token, probability = tokenizer.decode([ids[place]]), round(math.exp(chance.logp), 4)
    if chance.other is None:
        return UnsureToken(place, token, probability)
    other = tokenizer.decode([chance.other])
    return UnsureToken(place, token, probability, other, round(math.exp(chance.other_logp), 4))
