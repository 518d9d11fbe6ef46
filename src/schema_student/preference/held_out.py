"""Decide which prompts are held out of preference training, for pairs, imported rows and validation requests."""

from __future__ import annotations

from typing import Any

from schema_student.core.records import Prompt
from schema_student.core.stamps import digest

ONE_IN = 10  # prompts, of which one is held out


def is_held_out(prompt: Prompt, **context: Any) -> bool:
    """Return whether a prompt is held out of DPO's training: one in ONE_IN, by its digest."""
    return int(prompt_digest(prompt, **context), 16) % ONE_IN == 0


def split_of(prompt: Prompt, **context: Any) -> str:
    """Return the split of a prompt's pairs."""
    return "validation" if is_held_out(prompt, **context) else "train"


def prompt_digest(prompt: Prompt, **context: Any) -> str:
    """Compute the digest of a prompt, its name in files that need not repeat it; a single user turn is its text.

    `context` is what the student reads beside the messages (tools, chat_template_kwargs): the same words with other
    tools are another prompt.

    >>> prompt_digest("two nights") == prompt_digest([{"role": "user", "content": "two nights"}], tools=None)
    True
    """
    text, beside = as_text(prompt), {name: value for name, value in context.items() if value}
    if beside:
        text = [{"prompt": text, **beside}]
    return digest(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)[:16]


def as_text(prompt: Prompt) -> Prompt:
    """Write a single user turn as its text, so that it is the same prompt either way; other messages as they are."""
    alone = isinstance(prompt, list) and len(prompt) == 1 and prompt[0]["role"] == "user"
    return prompt[0]["content"] if alone and isinstance(prompt, list) else prompt
