"""Say of a tokenizer what a GGUF file holds of one: tokens, their kinds, and scores or merges.

llama.cpp has two tokenizers for language models, and knows how a text is cut before by names alone:

    llama   SentencePiece's BPE: joins the pair whose piece has the highest score
    gpt2    byte-level BPE: joins by the list of merges, within what tokenizer.ggml.pre cuts
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gguf import TokenType

from schema_student.core.errors import UserError
from schema_student.student.bases.gguf_tokenizer import CUTS, SPACE, make_cutters

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
SPACES_AS_SIGNS = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer in the words of GGUF; `scores` of SentencePiece's, `merges` of a byte-level one."""

    model: str  # "llama" or "gpt2"
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]
    space_prefix: bool


def read_vocabulary(tokenizer: Any, rows: int) -> Vocabulary:
    """Read a tokenizer's vocabulary, as far as the embedding has rows for it.

    Raises UserError for one that llama.cpp would not split texts like.
    """
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    model = data["model"]
    if model["type"] != "BPE":
        raise UserError(f"GGUF: llama.cpp has no tokenizer of the kind {model['type']}; export --kind merged")
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = [names.get(number, f"[UNUSED{number}]") for number in range(rows)]
    types = _find_types(data, tokens, {number for number in range(rows) if number not in names})
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if cutters := _byte_level_cutters(data["pre_tokenizer"]):
        return Vocabulary("gpt2", _name_cut(cutters), tokens, types, [], merges, space_prefix=False)
    prefixed = _is_prefixed(data)
    spoken = [
        t.replace(SPACE, " ") if kind == TokenType.USER_DEFINED else t for t, kind in zip(tokens, types, strict=True)
    ]
    return Vocabulary("llama", "default", spoken, types, _find_scores(tokens, merges), [], prefixed)


def _find_types(data: dict[str, Any], tokens: list[str], missing: set[int]) -> list[int]:
    """Find the kind of each token: what is one token wherever it stands, what is a byte, what is nothing."""
    added = {token["id"]: token["special"] for token in data["added_tokens"]}
    unknown = data["model"].get("unk_token")

    def kind(number: int, token: str) -> TokenType:
        if number in missing:
            return TokenType.UNUSED
        if token == unknown and data["model"].get("byte_fallback"):
            return TokenType.UNKNOWN
        if number in added:
            return TokenType.CONTROL if added[number] else TokenType.USER_DEFINED
        return TokenType.BYTE if BYTE.fullmatch(token) and data["model"].get("byte_fallback") else TokenType.NORMAL

    return [int(kind(number, token)) for number, token in enumerate(tokens)]


def _find_scores(tokens: list[str], merges: list[str]) -> list[float]:
    """Score each piece by the first merge that makes it: SentencePiece joins by scores where BPE joins by ranks."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _is_prefixed(data: dict[str, Any]) -> bool:
    """Return whether a space is put before a text; raises UserError for a text that is changed otherwise."""
    normalizer = data["normalizer"] or {}
    if not data["model"].get("byte_fallback"):
        raise UserError("GGUF: llama.cpp's SentencePiece spells unknown letters in bytes, this tokenizer does not")
    if normalizer == SPACES_AS_SIGNS:
        return False
    prepend = {"type": "Prepend", "prepend": SPACE}
    if normalizer.get("normalizers") == [prepend, SPACES_AS_SIGNS]:
        return True
    raise UserError(f"GGUF: this tokenizer changes texts as llama.cpp does not ({normalizer.get('type')})")


def _byte_level_cutters(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What cuts a text before bytes are merged; [] for a tokenizer that is not byte-level."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer] if pre_tokenizer else [])
    plain = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    return plain if any(step["type"] == "ByteLevel" for step in plain) else []


def _name_cut(cutters: list[dict[str, Any]]) -> str:
    """Find the name by which llama.cpp knows how a text is cut; raises UserError for a cut that it does not know."""
    for name, cut in CUTS.items():
        known = [json.loads(step.__getstate__()) for step in make_cutters(cut)]
        if cutters == _byte_level_cutters({"pretokenizers": known}):
            return name
    raise UserError(
        "GGUF: llama.cpp knows by name how texts are cut before they are merged, and has no name for how this base's "
        f"tokenizer cuts them (it knows {', '.join(CUTS)}); export --kind merged"
    )
