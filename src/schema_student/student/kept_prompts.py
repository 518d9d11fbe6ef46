"""Keep keys and values of prompts for later ones that begin alike: a server's requests to one schema.

The prompt used last is kept longest; `most_tokens` bounds all of them together (Gemma 3 270M: 18 KiB a token).
"""

from __future__ import annotations

from collections.abc import Sequence

from schema_student.student.key_values import Prefix, Prompts, cut_reading
from schema_student.student.prompt_tree import shared_length

MOST_TOKENS = 8192
LEAST_TOKENS = 16  # that prompts must share for a prefix to be worth its place
LEAST_SHARE = 0.5  # of a prompt that another one has in common: below that it is kept as well


class KeptPrompts:
    """Prompts that were read, the one used last at the end."""

    def __init__(self, most_tokens: int = MOST_TOKENS) -> None:
        self.most_tokens = most_tokens
        self._kept: list[Prefix] = []

    @property
    def tokens(self) -> int:
        """Count the tokens of all of them."""
        return sum(len(kept.ids) for kept in self._kept)

    def find(self, prompts: Sequence[list[int]]) -> tuple[Prefix | None, int]:
        """Find the longest kept prefix of the first prompt, and how many prompts, from it on, are read together.

        Of a prompt at least its last token is read: its logits are what the answer begins with.
        """
        first = prompts[0]
        shared = {i: min(shared_length(kept.ids, first), len(first) - 1) for i, kept in enumerate(self._kept)}
        best = max(shared, key=shared.__getitem__, default=0)
        length = shared.get(best, 0)
        if length < LEAST_TOKENS:
            return None, cut_reading(prompts)
        self._kept.append(self._kept.pop(best))
        alike = [first]
        for prompt in prompts[1:]:
            if len(prompt) <= length or prompt[:length] != first[:length]:
                break
            alike.append(prompt)
        return self._kept[-1].cut(length), cut_reading([prompt[length:] for prompt in alike])

    def add(self, prompt: list[int], read: Prompts, prefix: Prefix | None) -> None:
        """Keep the first prompt of a reading, where it has little in common with what is kept."""
        known = len(prefix.ids) if prefix else 0
        if known < LEAST_SHARE * len(prompt) and len(prompt) <= self.most_tokens:
            self._kept.append(read.prefix(0, prompt))
            while self.tokens > self.most_tokens:
                self._kept.pop(0)
