"""Name the splits: what is trained on, what pairs are made of, and what is only tested; take some rows of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

Split = Literal["train", "validation", "alignment", "test_seen", "test_unseen"]
SPLITS: tuple[str, ...] = get_args(Split)
TRAINED = ("train", "validation")  # in the corpus; validation chooses the checkpoint
TESTS = ("test_seen", "test_unseen")


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """Take up to `count` of some rows, evenly spread.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]
