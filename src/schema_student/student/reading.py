"""Read right answers: how likely a student finds them, and whether greedy decoding would write one of them.

One forward pass over a request and its right answers says what hundreds of samples would: the share of samples at
temperature 1 that are one of these texts. Answers cost a hundred times what reading costs.

    (reading,) = read_answers(student, [[encode(tokenizer, prompt, text) for text in right]], 64, 16384, True, None)
    reading.p_truth, reading.greedy
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate.utils import send_to_device

from schema_student.student import batching
from schema_student.student.batching import Ids
from schema_student.student.loading import Student
from schema_student.student.sureness import LIKELY


@dataclass(frozen=True)
class Reading:
    """What a student thinks of the right answers to a request.

    `p_truth` is the sum of their likelihoods, each of the whole text and the end of its turn. `least_logp` is the log p
    (nats) of the least likely token of the answer whose least likely token is the likeliest, the `best` of them, of
    which `logps` are those of its tokens. `first_logp` is the log p of the first answer, the target's.
    """

    p_truth: float
    least_logp: float
    best: int
    logps: tuple[float, ...] = ()
    first_logp: float | None = None

    @property
    def greedy(self) -> bool:
        """Whether greedy decoding writes one of the answers: each of its tokens is given more than 1/2."""
        return self.least_logp > LIKELY


def read_answers(
    student: Student,
    answers: Sequence[Sequence[Ids]],
    batch_size: int,
    batch_tokens: int,
    trees: bool,
    autocast: torch.dtype | None,
) -> list[Reading]:
    """Read the right answers to each request, one or more; `batch_size` requests share a batch. No gradient."""
    found: list[Reading] = []
    for batch in batching.cut_batches(answers, range(len(answers)), batch_size, batch_tokens, trees):
        logps_BC = _read_batch(student, [ids for i in batch for ids in answers[i]], trees, autocast)
        whole, least = logps_BC.double().sum(-1).tolist(), logps_BC.amin(-1).tolist()  # 0 where padded
        begin = 0
        for i in batch:
            end = begin + len(answers[i])
            read = summarize_answers(whole[begin:end], least[begin:end])
            tokens = len(answers[i][read.best].completion_ids)
            found.append(replace(read, logps=tuple(logps_BC[begin + read.best, :tokens].tolist())))
            begin = end
    return found


def read_logps(
    student: Student,
    sequences: Sequence[Ids],
    batch_size: int,
    batch_tokens: int,
    trees: bool,
    autocast: torch.dtype | None,
) -> list[float]:
    """Read log p (nats) of each completion with the end of its turn, `batch_size` of them in a batch. No gradient."""
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i].prompt_ids, i))  # neighbors share prefixes
    found = [0.0] * len(sequences)
    for batch in batching.cut_batches([[ids] for ids in sequences], order, batch_size, batch_tokens, trees):
        logps_BC = _read_batch(student, [sequences[i] for i in batch], trees, autocast)
        for i, logp in zip(batch, logps_BC.double().sum(-1).tolist(), strict=True):
            found[i] = logp
    return found


def _read_batch(student: Student, sequences: Sequence[Ids], trees: bool, autocast: torch.dtype | None) -> torch.Tensor:
    """Log p of each completion token (B, C), 0 where padded."""
    collated = batching.collate(sequences, student.tokenizer.pad_token_id, trees)
    with torch.no_grad():
        return batching.completion_logps(student.model, send_to_device(collated, student.model.device), autocast)


def summarize_answers(logps: Sequence[float], least: Sequence[float]) -> Reading:
    """Summarize log p of each answer, and of its least likely token.

    >>> summarize_answers([math.log(0.5), math.log(0.25)], [math.log(0.6), math.log(0.3)])
    Reading(p_truth=0.75, least_logp=-0.5108256237659907, best=0, logps=(), first_logp=-0.6931471805599453)
    """
    best = max(range(len(least)), key=least.__getitem__)
    return Reading(math.fsum(map(math.exp, logps)), least[best], best, first_logp=logps[0])
