"""Name the splits: what is trained on, what pairs are made of, and what is only tested; read those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

Split = Literal["train", "validation", "alignment", "test_seen", "test_unseen"]
SPLITS: tuple[str, ...] = get_args(Split)
TRAINED = ("train", "validation")  # in the corpus; validation chooses the checkpoint
VALIDATION = "validation"
TESTS = ("test_seen", "test_unseen")
WORDS = {"train": ("train",), "validation": ("val", "dev", "eval"), "test": ("test",)}  # how names of splits begin


def read_split(word: str) -> str | None:
    """Read the split that a word of others means: train, validation or test; None for what means none of them.

    >>> [read_split(word) for word in ("training", "Dev", "test_unseen", "holdout")]
    ['train', 'validation', 'test', None]
    """
    return next((split for split, begins in WORDS.items() if word.strip().lower().startswith(begins)), None)


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """Take up to `count` of some rows, evenly spread.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]
