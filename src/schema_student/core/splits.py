"""Name the splits: what is trained on, what pairs are made of, and what is only tested; read those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from schema_student.core.log import log

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


def take_part(rows: Sequence[Any], limit: int, what: str) -> list[Any]:
    """Take --max-samples of some rows, evenly spread, and say of `what` rows they are a part; 0 = all.

    >>> take_part("abcdef", 0, "letters") == list("abcdef")
    True
    """
    say_part(len(rows), limit, what)
    return spread(rows, limit or len(rows))


def say_part(count: int, limit: int, what: str) -> None:
    """Say that of so many rows --max-samples takes a part, where it does."""
    if 0 < limit < count:
        log.info(f"  {what}: {limit} of {count}, by --max-samples")


def smaller_limit(*limits: int) -> int:
    """Return the smallest of limits of which 0 is none.

    >>> smaller_limit(0, 40, 20), smaller_limit(0, 0)
    (20, 0)
    """
    return min(filter(None, limits), default=0)


def take_of_splits(rows: Sequence[Any], limit: int) -> list[Any]:
    """Take --max-samples of each split of some rows, in their order; 0 = all."""
    if not limit:
        return list(rows)
    splits = dict.fromkeys(row.split for row in rows)
    parts = (take_part([i for i, row in enumerate(rows) if row.split == split], limit, split) for split in splits)
    return [rows[i] for i in sorted(i for part in parts for i in part)]
