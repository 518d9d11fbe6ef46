"""Name the splits: what is trained on, what pairs are made of, and what is only tested."""

from __future__ import annotations

from typing import Literal, get_args

Split = Literal["train", "validation", "alignment", "test_seen", "test_unseen"]
SPLITS: tuple[str, ...] = get_args(Split)
TRAINED = ("train", "validation")  # in the corpus; validation chooses the checkpoint
TESTS = ("test_seen", "test_unseen")
