"""Build the tokenizer that a GGUF file describes.

Transformers' own conversion of Gemma's gives a unigram model that spells words letter by letter, and takes the wrong
tokens for the special ones of others; so it is built here, for the two kinds that language models have:

    llama   SentencePiece's BPE: pieces with scores, "_" for a space, bytes as <0x0A>
    gpt2    byte-level BPE: tokens and merges; tokenizer.ggml.pre names how a text is cut before
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from schema_student.core.errors import UserError
from schema_student.student.bases.gguf_header import Header

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "\u2581"  # SentencePiece's sign for a space
CONTROL, USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type
TOKENS = "tokenizer.ggml.tokens"
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How a text is cut before it is merged, by tokenizer.ggml.pre (llama.cpp, llm_tokenizer_bpe).
CUTS = {
    "llama-bpe": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{TAIL}",
    "qwen2": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{TAIL}",
    "smollm": "digits",
    "gpt-2": "",
}


def build_tokenizer(header: Header) -> Any:
    """Build the tokenizer of a GGUF file for Transformers, with its chat template where the file has one.

    Raises UserError for a file without a tokenizer, or with one of a kind that is not known here.
    """
    from transformers import PreTrainedTokenizerFast

    metadata = header.metadata
    tokens = read_tokens(header)
    kind = str(metadata.get("tokenizer.ggml.model"))
    makers = {"llama": _sentencepiece, "gpt2": _byte_level}
    if kind not in makers:
        raise UserError(f"{header.path} has a tokenizer of the kind {kind!r}; name a fitting one by --tokenizer")
    tokenizer = makers[kind](header, tokens)
    _add_tokens(tokenizer, metadata, tokens)
    special = _special_tokens(metadata, tokens)
    _add_bos(tokenizer, metadata, special)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    template = metadata.get("tokenizer.chat_template")
    made.chat_template = template if isinstance(template, str) else None
    return made


def read_tokens(header: Header) -> list[str]:
    """Read the vocabulary, a token an id; raises UserError where there is none, or it is not one token an id."""
    tokens = header.metadata.get(TOKENS)
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{header.path} holds no tokenizer; name a fitting one by --tokenizer FOLDER_OR_ID")
    if len(set(tokens)) < len(tokens):
        raise UserError(f"{header.path}: its vocabulary has the same token twice; name a tokenizer by --tokenizer")
    kinds = header.metadata.get("tokenizer.ggml.token_type") or [0] * len(tokens)
    if len(kinds) != len(tokens):
        raise UserError(f"{header.path}: its vocabulary has no kind for each token; name a tokenizer by --tokenizer")
    if header.metadata.get("tokenizer.ggml.model") != "llama":
        return tokens
    # llama.cpp's converter writes a space as itself in what a user defined, and as SPACE elsewhere.
    return [t.replace(" ", SPACE) if kind == USER_DEFINED else t for t, kind in zip(tokens, kinds, strict=True)]


def _sentencepiece(header: Header, tokens: list[str]) -> Tokenizer:
    """Build BPE whose merges are the pairs of pieces that make a piece, in the order of the scores."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    scores = header.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise UserError(f"{header.path}: its vocabulary has no score for each token; name a tokenizer by --tokenizer")
    ids = {token: number for number, token in enumerate(tokens)}
    users = {token for token, kind in _kinds(header.metadata, tokens) if kind == USER_DEFINED}
    unknown = _token_at(header.metadata, "unknown", tokens)
    model = models.BPE(ids, _find_merges(ids, scores, users), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    prefixed = header.metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefixed else spaces
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return tokenizer


def _find_merges(ids: dict[str, int], scores: list[float], first: set[str]) -> list[tuple[str, str]]:
    """List the merges: those of the pieces `first`, then by the score of what they make, then longer ones first."""
    found = []
    for piece, number in ids.items():
        score = 1.0 if piece in first else scores[number]
        pairs = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        known = sorted((ids[left], ids[right], left, right) for left, right in pairs if left in ids and right in ids)
        found += [(score, len(left), len(right), left, right) for _, _, left, right in known]
    found.sort(key=lambda merge: merge[:3], reverse=True)
    return [(left, right) for *_, left, right in found]


def _byte_level(header: Header, tokens: list[str]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    cut = str(header.metadata.get("tokenizer.ggml.pre"))
    merges = header.metadata.get("tokenizer.ggml.merges")
    if cut not in CUTS or not isinstance(merges, list):
        reason = f"cuts texts as {cut!r}" if isinstance(merges, list) else "has no merges"
        raise UserError(f"{header.path}: its tokenizer {reason}; name a fitting one by --tokenizer FOLDER_OR_ID")
    pairs = [(left, right) for left, _, right in (str(merge).partition(" ") for merge in merges)]
    try:
        model = models.BPE({token: number for number, token in enumerate(tokens)}, pairs)
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{header.path}: its tokenizer's merges are not of its vocabulary: {error}") from None
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(make_cutters(CUTS[cut]))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def make_cutters(cut: str) -> list[Any]:
    """Make what cuts a text before it is merged, and writes its bytes as letters."""
    from tokenizers import Regex, pre_tokenizers

    if cut in ("", "digits"):  # GPT-2's own expression, after single digits
        digits: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if cut else []
        return [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    own = pre_tokenizers.Split(Regex(cut), "isolated")
    return [own, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def _add_tokens(tokenizer: Tokenizer, metadata: dict[str, Any], tokens: list[str]) -> None:
    """Add what is one token wherever it stands in a text: control tokens, and those that a user defined."""
    from tokenizers import AddedToken

    listed = list(_kinds(metadata, tokens))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in listed if k == CONTROL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t, k in listed if k == USER_DEFINED])


def _kinds(metadata: dict[str, Any], tokens: list[str]) -> Iterator[tuple[str, int]]:
    """Pair each token with its kind, as far as the file says it."""
    return zip(tokens, metadata.get("tokenizer.ggml.token_type") or [], strict=False)


def _special_tokens(metadata: dict[str, Any], tokens: list[str]) -> dict[str, str]:
    found = {name: _token_at(metadata, key, tokens) for name, key in SPECIAL.items()}
    return {name: token for name, token in found.items() if token is not None}


def _token_at(metadata: dict[str, Any], key: str, tokens: list[str]) -> str | None:
    number = metadata.get(f"tokenizer.ggml.{key}_token_id")
    return tokens[number] if isinstance(number, int) and 0 <= number < len(tokens) else None


def _add_bos(tokenizer: Tokenizer, metadata: dict[str, Any], special: dict[str, str]) -> None:
    """Have each text begin with the token that begins one, where the file says so (SentencePiece's: by default)."""
    from tokenizers import processors

    begins = metadata.get("tokenizer.ggml.add_bos_token", metadata.get("tokenizer.ggml.model") == "llama")
    if begins and (token := special.get("bos_token")):
        number = tokenizer.token_to_id(token)
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{token} $A", f"{token} $A {token} $B:1", [(token, number)]
        )
