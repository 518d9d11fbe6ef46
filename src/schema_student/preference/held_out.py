"""Which prompts are held out of preference training."""

from __future__ import annotations

from schema_student.core.stamps import digest

HELD_OUT = 10  # one prompt in so many


def is_held_out(prompt: str) -> bool:
    """Whether DPO never trains on a prompt: one in HELD_OUT, by its digest."""
    return int(prompt_digest(prompt), 16) % HELD_OUT == 0


def prompt_digest(prompt: str) -> str:
    """Digest of a prompt: its name in files that need not repeat it."""
    return digest(prompt.encode())[:16]
