"""Constrain decoding to what a schema allows: its grammar, and which token may come next.

llguidance reads a schema as a grammar. What it ignores (found before, and named) stays for the judge; conditions are
rewritten as alternatives, which it enforces. A token that the student wants is only looked up; a mask over the
vocabulary is computed where the grammar refuses it, so that a student that writes valid answers pays next to nothing.

    constraint = compile_constraint(schema, open_engine(tokenizer, stop_ids))     # constraint.ignored: ("uniqueItems",)
    guide = constraint.start()
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import LogitsProcessor

from schema_student.core.errors import UserError
from schema_student.schema.conditions import rewrite_conditions
from schema_student.schema.structure import CONSTANTS, NAMING, list_nodes, references_of

OPTIONS: Any = {"whitespace_flexible": False, "lenient": True, "coerce_one_of": True}  # compact, as students are taught
OWN_WORDS = {"if": "if/then/else", "then": "", "else": ""}
ONE_OF = "oneOf (as anyOf)"


class UnenforceableError(UserError):
    """A schema that constrained decoding cannot enforce at all."""


@dataclass(frozen=True)
class Engine:
    """A tokenizer as the engine of grammars knows it, and the tokens that end an answer."""

    tokens: Any
    stop_ids: frozenset[int]


@dataclass(frozen=True)
class Constraint:
    """A schema as a grammar over an engine's tokens; `ignored` names what of the schema it does not enforce."""

    engine: Engine
    matcher: Any
    ignored: tuple[str, ...]

    def start(self) -> Guide:
        """Start an answer."""
        return Guide(self.matcher.deep_copy(), self.engine.stop_ids)


class Guide:
    """What a grammar allows next while one answer is written."""

    def __init__(self, matcher: Any, stop_ids: frozenset[int]) -> None:
        self._matcher, self._stop_ids = matcher, stop_ids
        self.changed = 0  # tokens that the student would have chosen otherwise

    def take(self, wanted: int, logits_V: torch.Tensor, choose: Callable[[torch.Tensor], int]) -> int:
        """Take the token that the student wants, or where the grammar refuses it what `choose` takes of the others.

        Sampling stays exact: what is drawn again, of the allowed ones alone, has the shares that a mask would give.
        """
        if self.accepts(wanted):
            return wanted
        self.changed += 1
        allowed_V = self.allowed(len(logits_V)).to(logits_V.device)
        token = choose(logits_V.masked_fill(~allowed_V, -torch.inf))
        self.accepts(token)
        return token

    def follow(self, new_ids: Sequence[int], vocabulary: int) -> torch.Tensor:
        """Follow tokens that were written, and return which may come next (V); padding after an end changes nothing."""
        for token in new_ids:
            self.accepts(token)
        return self.allowed(vocabulary)

    def accepts(self, token: int) -> bool:
        """Whether a token may come next; it is written down where it may."""
        if token in self._stop_ids:
            return bool(self._matcher.is_accepting())
        return not self._matcher.is_stopped() and self._matcher.try_consume_tokens([token]) == 1

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """Return which tokens may come next (V)."""
        allowed_V = torch.zeros(vocabulary, dtype=torch.bool)
        if not self._matcher.is_stopped():
            bits = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
            each_V = ((bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten().bool()[:vocabulary]
            allowed_V[: len(each_V)] = each_V
        # Where nothing is allowed the engine has given up: the answer ends there, and is judged as it is.
        allowed_V[list(self._stop_ids)] = bool(self._matcher.is_accepting()) or not bool(allowed_V.any())
        return allowed_V


class SchemaLogitsProcessor(LogitsProcessor):
    """Holds transformers' own `generate` to schemas, one a row of its batch: logits_processor=[...]; made for one call.

    >>> model.generate(**prompts, logits_processor=[SchemaLogitsProcessor(constraints)])             # doctest: +SKIP
    """

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self._guides = [constraint.start() for constraint in constraints]
        self._read = 0  # columns that the guides have seen

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the scores (B, V) of the tokens that may not follow input_ids (B, T)."""
        if len(input_ids) != len(self._guides):
            raise ValueError(f"{len(self._guides)} constraints for {len(input_ids)} rows: beams are not constrained")
        new = input_ids[:, self._read :].tolist() if self._read else [[]] * len(input_ids)
        self._read = input_ids.shape[1]
        allowed = [guide.follow(ids, scores.shape[1]) for guide, ids in zip(self._guides, new, strict=True)]
        return scores.masked_fill(~torch.stack(allowed).to(scores.device), -torch.inf)


@lru_cache(maxsize=4)
def open_engine(tokenizer: Any, stop_ids: frozenset[int]) -> Engine:
    """Build the engine of a tokenizer, once (seconds for Gemma's).

    Raises UserError where llguidance is missing or cannot read the tokenizer.
    """
    try:
        from llguidance.hf import from_tokenizer
    except ImportError:
        raise UserError("constrained decoding needs llguidance: pip install llguidance") from None
    try:
        return Engine(from_tokenizer(tokenizer, eos_token=sorted(stop_ids)), stop_ids)
    except ValueError as error:
        raise UserError(f"constrained decoding cannot read this tokenizer: {error}; decode without it") from None


def compile_constraint(schema: dict[str, Any], engine: Engine) -> Constraint:
    """Compile a schema's grammar; the same one is compiled once. Raises UnenforceableError with the engine's reason."""
    return _compile(json.dumps(schema), engine)


@lru_cache(maxsize=512)
def _compile(text: str, engine: Engine) -> Constraint:
    from llguidance import LLMatcher

    schema = json.loads(text)
    dropped = ["x-rules"] if schema.pop("x-rules", None) else []
    schema.pop("x-guidance", None)  # by which a schema would set the engine's options
    _drop_beside_references(schema)
    kept = _without_unread(rewrite_conditions(schema), dropped)
    grammar = LLMatcher.grammar_from_json_schema(kept, overrides=OPTIONS)
    failed, said = LLMatcher.validate_grammar_with_warnings(grammar, engine.tokens)
    if failed:
        reason = said[0].strip().splitlines()[-1]
        raise UnenforceableError(f"this schema cannot be enforced while an answer is written: {reason}")
    ignored = [*dropped, *(name for words in said for name in _read_warning(words))]
    return Constraint(engine, LLMatcher(engine.tokens, grammar, log_level=0), tuple(dict.fromkeys(ignored)))


def _drop_beside_references(schema: dict[str, Any]) -> None:
    """Drop the keywords beside a $ref that count nothing in the schema's draft: the engine counts all."""
    references = references_of(schema)
    for node in list_nodes(schema):
        if isinstance(node.get("$ref"), str):
            counted = references.siblings(node)
            for key in node.keys() - counted.keys() - {"$ref"}:
                del node[key]


def _read_warning(words: str) -> Iterator[str]:
    """Name the keywords that one of the engine's warnings is about."""
    if "oneOf" in words:
        yield ONE_OF
    elif keys := re.search(r"Unimplemented keys: (\[.*\])", words):
        yield from filter(None, (OWN_WORDS.get(key, key) for key in json.loads(keys[1])))
    else:
        yield words.replace("Unknown format: ", "format ")


def _without_unread(node: Any, dropped: list[str]) -> Any:
    """Drop the keywords over which the engine fails instead of ignoring them, and those that say nothing."""
    if isinstance(node, list):
        return [_without_unread(part, dropped) for part in node]
    if not isinstance(node, dict):
        return node
    unread = _find_unread(node)
    dropped += [name for name in unread if node[name] not in (0, False)]
    return {key: _keep_child(key, child, dropped) for key, child in node.items() if key not in unread}


def _keep_child(key: str, child: Any, dropped: list[str]) -> Any:
    if key in CONSTANTS or key.startswith("x-"):
        return child
    if key in NAMING and isinstance(child, dict):
        return {name: _without_unread(part, dropped) for name, part in child.items()}
    return _without_unread(child, dropped)


def _find_unread(node: dict[str, Any]) -> list[str]:
    unread = ["uniqueItems"] if node.get("uniqueItems") is False else []
    if "pattern" in node and not _is_read({"type": "string", "pattern": node["pattern"]}):
        unread.append("pattern")
    if not {*node.get("properties", ())} <= {*node.get("required", ())}:
        unread += [key for key in ("minProperties", "maxProperties") if key in node]
    named = node.get("patternProperties")
    if named and not _is_read({"type": "object", "patternProperties": {name: {} for name in named}}):
        # Without the patterns what they name would be what additionalProperties is about.
        unread += [key for key in ("patternProperties", "additionalProperties") if key in node]
    return unread


def _is_read(schema: dict[str, Any]) -> bool:
    from llguidance import LLMatcher

    return not LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS))
