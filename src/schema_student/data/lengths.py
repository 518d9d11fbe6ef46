"""Say before the teacher is asked, and before training, which schemas give prompts longer than the student reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schema_student.core.log import log
from schema_student.core.settings import AnySettings, resolve_auto
from schema_student.schema.prompts import render_prompt
from schema_student.student.choice import choose_student
from schema_student.student.loading import load_tokenizer
from schema_student.student.tokens import encode_prompt

SHOWN = 5  # schemas named


def check_lengths(schemas: Mapping[str, dict[str, Any]], settings: AnySettings) -> dict[str, int]:
    """Count the tokens of prompts without a request; says which are too long, and returns their lengths.

    A token has a byte at least, and an answer is given less than half of the room: only where a prompt has more bytes
    than that is a tokenizer loaded.
    """
    prompts = {name: render_prompt(each, "", "", settings.prompt.schema_rendering) for name, each in schemas.items()}
    longest = settings.length.max_seq_length
    doubtful = {name: prompt for name, prompt in prompts.items() if len(prompt.encode()) > longest // 2}
    if not doubtful:
        return {}
    choice = choose_student(settings)
    room = longest - resolve_auto(settings, choice.kind).generation.max_new_tokens
    lengths = {name: count_tokens(prompt, choice.base) for name, prompt in doubtful.items()}
    overlong = {name: length for name, length in lengths.items() if length > room}
    if overlong:
        log.warning(_describe(overlong, len(schemas), room))
    return overlong


def describe_length(prompt: str, settings: AnySettings) -> str:
    """Say how long a prompt is, and how long it may be."""
    choice = choose_student(settings)
    room = settings.length.max_seq_length - resolve_auto(settings, choice.kind).generation.max_new_tokens
    tokens = count_tokens(prompt, choice.base)
    return f"{len(prompt):,} characters, {tokens:,} tokens of {choice.name}; {room:,} fit beside an answer"


def count_tokens(prompt: str, base: str) -> int:
    """Count a prompt's tokens by the base's tokenizer; four bytes for one where that is not in reach."""
    try:
        return len(encode_prompt(load_tokenizer(base), prompt))
    except OSError:
        return len(prompt.encode()) // 4


def _describe(overlong: dict[str, int], total: int, room: int) -> str:
    longest = sorted(overlong, key=lambda name: -overlong[name])
    shown = ", ".join(f"{name} ({overlong[name]:,} tokens)" for name in longest[:SHOWN])
    more = f" and {len(longest) - SHOWN} more" if len(longest) > SHOWN else ""
    return (
        f"too long for the student: the prompts of {len(overlong)} of {total} schemas: {shown}{more}. {room:,} tokens "
        "fit beside an answer (max_seq_length less max_new_tokens); such rows are not trained on: raise "
        "--max-seq-length, or give smaller schemas"
    )
