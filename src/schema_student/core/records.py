"""Define the rows that cross stages: a frozen type a file, its fields in the order in which they are written.

A field without a default must be there. What a user's file has beyond the fields stands in `extra` and is written back.

    rows = read_rows(where.corpus, CorpusRow)      # raises UserError with file:line and the field that is missing
    write_rows(where.corpus, rows)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, name_maker, number_rows, write_jsonl

Prompt = str | list[dict[str, Any]]  # text, or messages {role, content}
R = TypeVar("R", bound="Record")
OPTIONAL = {"optional": True}  # of a field that is not written where it is None


@dataclass(frozen=True, kw_only=True)
class Record:
    """A row of a JSONL file."""

    extra: Row = field(default_factory=dict)

    @classmethod
    def from_json(cls, row: Row, where: str = "row", advice: str = "") -> Self:
        """Make a row of a JSON object.

        Raises UserError that begins with `where` for a missing field, or a required *_json that holds no JSON.
        """
        names, required = _field_names(cls)  # type: ignore[arg-type]
        if missing := [name for name in required if name not in row]:
            raise UserError(f"{where}: this row has no {', '.join(missing)}{advice}")
        for name in required:
            if name.endswith("_json"):
                _check_nested(row[name], f"{where}: {name}")
        own = {name: row[name] for name in names if name in row}
        return cls(**own, extra={name: value for name, value in row.items() if name not in own})

    def as_json(self) -> Row:
        """Return the row as a JSON object, fields in their order, then what is extra."""
        return {name: getattr(self, name) for name in self._written()} | self.extra

    def _written(self) -> Iterable[str]:
        for each in dataclasses.fields(self):
            if each.name != "extra" and not (each.metadata.get("optional") and getattr(self, each.name) is None):
                yield each.name


class ReadBeside:
    """What the student reads beside the messages of a row's prompt; the same words with other tools are another one."""

    tools: list[Row] | None
    chat_template_kwargs: Row | None

    @property
    def context(self) -> Row:
        """Return the columns beside the prompt by their names."""
        return {"tools": self.tools, "chat_template_kwargs": self.chat_template_kwargs}


@cache
def _field_names(kind: type[Record]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(all fields, those that a row must have)."""
    found = [each for each in dataclasses.fields(kind) if each.name != "extra"]
    required = [
        each.name
        for each in found
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    return tuple(each.name for each in found), tuple(required)


def _check_types(kind: type[Record], row: Row, where: str) -> None:
    """Refuse a value of another type than its field: later it would be an error without a file and a line."""
    for name, types in _field_types(kind).items():  # type: ignore[arg-type]
        if name in row and not isinstance(row[name], types):
            expected = " or ".join(sorted(each.__name__ for each in types))
            raise UserError(f"{where}: {name} must be {expected}, not {type(row[name]).__name__}")


@cache
def _field_types(kind: type[Record]) -> dict[str, tuple[type, ...]]:
    """The types that a field's values may have, where it does not take any."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        types = {get_origin(option) or option for option in options}
        if Any not in types and name != "extra":
            found[name] = tuple(
                (types - {Sequence} | {list} if Sequence in types else types) | ({int} if float in types else set())
            )
    return found


def _check_nested(text: Any, where: str) -> None:
    try:
        json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON in a string: {error}") from None


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """Read the rows of a JSONL file, each of one type; raises UserError that names file and line of a broken one."""
    advice, found = name_maker(path), []
    for number, row in number_rows(path):
        found.append(kind.from_json(row, f"{path}:{number}", advice))
        _check_types(kind, row, f"{path}:{number}")
    return found


def name_rows(rows: Sequence[R], path: Path) -> dict[str, R]:
    """Name each row by its origin where it was imported, else by file and line."""
    return {getattr(row, "origin", None) or f"{path.name}:{number}": row for number, row in enumerate(rows, start=1)}


def write_rows(path: Path, rows: Iterable[Record]) -> None:
    """Write the rows of a JSONL file; atomic."""
    write_jsonl(path, (row.as_json() for row in rows))


# ---------------------------------------------------------------------------------------------------------------------
# Data


@dataclass(frozen=True, kw_only=True)
class DomainSpec(Record):
    """d_01: what the records of a domain are, and the prompt that asked for it."""

    schema_id: str
    domain: str
    noun: dict[str, str] = field(default_factory=lambda: {"en": "records", "fr": "fiches"})
    description: str
    fields: list[Row]
    example_queries: list[str]
    operators: list[Row] | None = field(default=None, metadata=OPTIONAL)  # its own; None: some of the catalog are drawn
    source_prompt: str = ""


@dataclass(frozen=True, kw_only=True)
class BuiltSchema(Record):
    """d_02: a domain specification, the operators drawn for it, and its JSON Schema."""

    schema_id: str
    domain: str
    noun: dict[str, str] = field(default_factory=lambda: {"en": "records", "fr": "fiches"})
    description: str = ""
    fields: list[Row] = field(default_factory=list)
    operators: list[Row]
    example_queries: list[str] = field(default_factory=list)
    schema: Row
    schema_json: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetRow(Record):
    """d_03: a request to a schema and its answer; or a rejected answer, with the reason."""

    schema_id: str
    domain: str = ""
    operators: list[Row] = field(default_factory=list)
    schema_json: str
    query: str
    current_date: str
    ast_json: str | None
    is_valid: bool
    validation_error: str | None = None
    error_type: str | None = None
    teacher_model: str | None = None
    split: str
    language: str | None = None
    kind: str | None = None
    accepted: dict[str, list[Any]] | None = None
    source: str | None = None

    @cached_property
    def schema(self) -> Any:
        """Return the JSON Schema."""
        return json.loads(self.schema_json)

    @cached_property
    def target(self) -> Any:
        """Return the answer's value."""
        return json.loads(self.ast_json) if self.ast_json else None


@dataclass(frozen=True, kw_only=True)
class CorpusRow(ReadBeside, Record):
    """d_04: a prompt and the completion to learn; `extra` is what is known of the request."""

    schema_id: str
    domain: str = ""
    prompt: Prompt
    completion: str
    is_valid: bool
    split: str
    tools: list[Row] | None = field(default=None, metadata=OPTIONAL)  # as a chat template takes them, with its prompt
    chat_template_kwargs: Row | None = field(default=None, metadata=OPTIONAL)
    origin: str | None = field(default=None, metadata=OPTIONAL)  # file:line of an imported row


# ---------------------------------------------------------------------------------------------------------------------
# Preferences


@dataclass(frozen=True, kw_only=True)
class StudentSamples(Record):
    """student_samples.jsonl: the student's answers to a prompt, each [text, finished]."""

    prompt_digest: str
    greedy: Sequence[Any]
    samples: Sequence[Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Pair(ReadBeside, Record):
    """dpo_pairs.jsonl: a better and a worse answer to a prompt, and why the worse one is worse."""

    prompt: Prompt
    chosen: str
    rejected: str
    schema_id: str
    chosen_rank: Any = field(default=None, metadata=OPTIONAL)  # of an imported pair: whatever its origin has there
    rejected_rank: Any = field(default=None, metadata=OPTIONAL)
    rejected_end: int | None = field(default=None, metadata=OPTIONAL)  # where its first wrong value ends, characters
    why: Any = ""
    source: Any = ""
    chosen_source: str | None = field(default=None, metadata=OPTIONAL)
    split: str = "train"
    tools: list[Row] | None = field(default=None, metadata=OPTIONAL)  # as a chat template takes them, with its prompt
    chat_template_kwargs: Row | None = field(default=None, metadata=OPTIONAL)
    origin: str | None = field(default=None, metadata=OPTIONAL)  # file:line of an imported row


@dataclass(frozen=True, kw_only=True)
class MarginRow(Record):
    """margins.jsonl: the margins (nats, free of beta) of an optimizer step's pairs; std is the population's."""

    step: int
    epoch: float = 0.0
    n: int
    mean: float
    std: float
    min: float
    p10: float
    median: float
    p90: float
    max: float
    pos_frac: float
    npy: str | None = field(default=None, metadata=OPTIONAL)
    sample: list[float] = field(default_factory=list)
    signs: list[int] | None = field(default=None, metadata=OPTIONAL)


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(Record):
    """evaluation_results.jsonl: a request of a test split, the student's answer, and the verdict on it.

    None in semantic_pass: it is not known; in refused and should_refuse: the schema has no refusals.
    """

    schema_id: str
    domain: str | None = None
    query: str
    split: str
    current_date: str
    language: str | None = None
    kind: str | None = None
    prompt_text: str = ""
    raw_output: str
    parsed: bool = False
    parse_error: str | None = None
    schema_valid: bool = False
    violations: list[Row] = field(default_factory=list)
    rank: int
    student_canonical: str | None = None
    target: Any = None
    accepted: dict[str, list[Any]] | None = None
    target_canonical: str | None = None
    exact_match: bool | None = False  # None, as the next: no right answer is known
    semantic_match_target: bool | None = False
    teacher_verdict: bool | None = None
    teacher_reason: str | None = None
    teacher_error: str | None = None
    semantic_pass: bool | None = None
    refused: bool | None = None
    should_refuse: bool | None = None
    suggestion_answerable: bool | None = None  # of a refusal: whether what it suggests names a field of the schema
    same_language: bool | None = (
        None  # whether the answer's own words are in the request's language, where both are known
    )
    fences_stripped: bool = False
    truncated: bool = False
    too_long: bool = False
    parts: list[Row] = field(default_factory=list)  # {name, right, given, expected} of the answer and its target
    tokens: int = 0
    seconds: float = 0.0
    mask_changes: int | None = field(default=None, metadata=OPTIONAL)  # tokens, of constrained decoding
    read: bool = False  # the answer is known by reading, and was not written
    p_truth: float | None = None  # likelihood of all right answers
    reference_logp: float | None = None  # nats, of the reference answer with the end of its turn
    reference_tokens: int | None = None
    log_p: float | None = None  # nats, of the answer with its end of turn, without constraints
    perturbed: str | None = field(default=None, metadata=OPTIONAL)  # how the request was said otherwise
    original_query: str | None = field(default=None, metadata=OPTIONAL)  # what it was before
    least_sure: list[Row] = field(default_factory=list)  # tokens: place, token, probability, other, other_probability


def prompt_key(row: DatasetRow | EvaluationRow) -> tuple[str, str, str, str]:
    """Return what two rows have in common that are of the same prompt."""
    return row.split, row.schema_id, row.current_date, row.query
