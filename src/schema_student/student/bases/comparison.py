"""Compare two tokenizers on texts of every script: the same ids, or the differences by name."""

from __future__ import annotations

from functools import cache
from typing import Any

from schema_student.core.jsonl import read_json
from schema_student.core.resources import DATA_DIR


@cache
def probe_texts() -> dict[str, str]:
    """Read the texts by name: of every script, and what tokenizers are known to differ on."""
    texts: dict[str, str] = read_json(DATA_DIR / "tokenizer_texts.json")
    return texts


def compare_tokenizers(one: Any, other: Any) -> list[str]:
    """Name the texts that two tokenizers encode differently."""
    return [
        name for name, text in probe_texts().items() if list(one(text)["input_ids"]) != list(other(text)["input_ids"])
    ]


def describe_vocabulary(tokenizer: Any, tokens: list[str]) -> str:
    """Say where a tokenizer's vocabulary is not that of the weights, a token an id; "" where it is.

    A token that SentencePiece's converters write in several ways (a tab as <0x09>) is the same by its id.
    """
    vocabulary = tokenizer.get_vocab()
    of_id = {number: token for token, number in vocabulary.items()}
    strangers = [
        f"{number} is {token!r}, not {of_id.get(number)!r}"
        for number, token in enumerate(tokens)
        if of_id.get(number) != token
    ]
    return f"{len(strangers):,} of {len(tokens):,} tokens differ ({'; '.join(strangers[:3])})" if strangers else ""
