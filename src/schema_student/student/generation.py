"""Generate answers to prompts, greedy or sampled: what evaluation, pairs, rollouts and ask call."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

from schema_student.core.log import log
from schema_student.core.progress import Progress
from schema_student.student.constraints import Constraint, compile_constraint, open_engine
from schema_student.student.decoding import Row, Written, decode
from schema_student.student.generated import Generation
from schema_student.student.tokens import Turns, encode_completion, encode_prompt


class TextGenerator(Protocol):
    """A model that writes text, and its tokenizer: what generation needs of a student."""

    model: Any
    tokenizer: Any


def generate(
    student: TextGenerator,
    prompts: Sequence[str | Turns],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    progress: str | Progress = "",
    schemas: Sequence[dict[str, Any]] | None = None,
    others_below: float | None = None,
) -> list[list[Generation]]:
    """Generate `samples` answers to each prompt, in the order given; temperature 0 is greedy.

    A sample depends on (seed, prompt, number of the sample), never on what shares its batch.
    `progress` names a new progress bar, or is one that counts answers. `schemas`, one a prompt, constrain the answers:
    raises UnenforceableError for one that cannot. With `others_below` the probability of each token is measured.
    """
    prompt_ids = [encode_prompt(student.tokenizer, prompt) for prompt in prompts]
    constraints = constrain(student, schemas) if schemas is not None else [None] * len(prompts)
    rows = [
        Row(ids, row_seed(seed, ids, sample), constraint)
        for ids, constraint in zip(prompt_ids, constraints, strict=True)
        for sample in range(samples)
    ]
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
    ordered = [rows[i] for i in order]
    written = decode(ordered, student.model, stop_ids, max_new_tokens, batch_size, temperature, bar, others_below)
    for i, each in zip(order, written, strict=True):
        answers[i] = _answer(each, stop_ids, student.tokenizer)
    if isinstance(progress, str):
        bar.close()
    student.model.train(was_training)
    return [answers[i * samples : (i + 1) * samples] for i in range(len(prompts))]


def constrain(student: TextGenerator, schemas: Sequence[dict[str, Any]]) -> list[Constraint]:
    """Compile the constraints of schemas for a student's tokens; raises UnenforceableError."""
    engine = open_engine(student.tokenizer, find_stop_ids(student))
    constraints = [compile_constraint(schema, engine) for schema in schemas]
    if ignored := sorted({name for constraint in constraints for name in constraint.ignored}):
        _say_ignored(", ".join(ignored))
    return constraints


@cache
def _say_ignored(names: str) -> None:
    """Name once a process what is left to the judge."""
    log.warning(f"not enforced while answers are written, but judged: {names}")


def find_stop_ids(student: TextGenerator) -> frozenset[int]:
    """Find the tokens that end an answer: the one that SFT teaches, and those that tokenizer and model name."""
    ends = [encode_completion(student.tokenizer, "{}")[-1]]
    for named in (student.tokenizer.eos_token_id, student.model.generation_config.eos_token_id):
        ends += named if isinstance(named, list) else [] if named is None else [named]
    return frozenset(ends)


def row_seed(seed: int, prompt_ids: list[int], sample: int) -> int:
    """Find the seed of the draws of a sample, by its number, whatever shares its batch."""
    return int.from_bytes(hashlib.sha256(repr((seed, sample, prompt_ids)).encode()).digest()[:8], "big")


def _answer(written: Written, stop_ids: frozenset[int], tokenizer: Any) -> Generation:
    finished = bool(written.ids) and written.ids[-1] in stop_ids
    text = tokenizer.decode(written.ids[:-1] if finished else written.ids, skip_special_tokens=True)
    changes = written.guide.changed if written.guide else 0
    return Generation(
        text, len(written.ids), finished, written.seconds, tuple(written.ids), changes, tuple(written.chances)
    )
