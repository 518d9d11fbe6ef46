"""Measure rows as the student reads them: lengths by percentile, and which rows are too long to be trained on.

A row's length in tokens is that of its prompt in the base's chat template and of its completion with the end of its
turn; whether it fits is decided as training decides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schema_student.core.log import log
from schema_student.core.records import CorpusRow
from schema_student.core.settings import AnySettings, ResolvedSettings, kebab_case, resolve_auto
from schema_student.student.choice import choose_student
from schema_student.student.loading import load_tokenizer
from schema_student.student.tokens import TurnsRefused, encode_completion, encode_prompt, find_length_fault

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
UNITS = ("characters", "bytes", "tokens")
BUDGETS = ("max_new_tokens", "max_seq_length", "batch_tokens")  # settings that a row may exceed, tokens
SHOWN = 3  # rows that are too long and are named
MOST_BYTES = 3 / 4  # of a budget in tokens, below which a text without the template's turns fits: a token has a byte


@dataclass(frozen=True)
class Size:
    """How long a text is."""

    characters: int
    bytes: int
    tokens: int


@dataclass(frozen=True)
class MeasuredRow:
    """How long a row's prompt and completion are; `fault` where it cannot be trained on whole, and why."""

    name: str  # file:line
    schema_id: str
    prompt: Size
    completion: Size
    fault: str

    @property
    def tokens(self) -> int:
        """Return the length of the whole sequence."""
        return self.prompt.tokens + self.completion.tokens


def measure_row(name: str, row: CorpusRow, tokenizer: Any, settings: ResolvedSettings) -> MeasuredRow:
    """Measure a row; one that the base's chat template refuses has no tokens."""
    prompt = row.prompt if isinstance(row.prompt, str) else "\n".join(turn["content"] for turn in row.prompt)
    texts = prompt, row.completion
    try:
        counts = count_tokens(row, tokenizer)
        fault = find_row_fault(row, counts, settings)
    except TurnsRefused as refused:
        counts, fault = (0, 0), str(refused)
    read, written = (Size(len(text), len(text.encode()), tokens) for text, tokens in zip(texts, counts, strict=True))
    return MeasuredRow(name, row.schema_id, read, written, fault)


def count_tokens(row: CorpusRow, tokenizer: Any) -> tuple[int, int]:
    """Count the tokens of a row's prompt and of its completion; raises TurnsRefused."""
    return len(encode_prompt(tokenizer, row.prompt, **row.context)), len(encode_completion(tokenizer, row.completion))


def find_row_fault(row: CorpusRow, counts: tuple[int, int], settings: ResolvedSettings) -> str:
    """Say why a row of so many tokens cannot be trained on whole; "" where it can. An end alone teaches nothing."""
    return find_length_fault(*counts, settings) if row.completion else "no supervised token"


def list_lengths(rows: Sequence[MeasuredRow], settings: ResolvedSettings) -> list[str]:
    """List the lengths of rows by percentile, a line a part and unit, with what the settings allow."""
    width = max(9, *(len(f"{row.prompt.bytes + row.completion.bytes:,}") for row in rows))
    heads = "".join(f"{head:>{width}}" for head in PERCENTILES)
    parts = {"prompt": lambda row, unit: getattr(row.prompt, unit)}
    parts["completion"] = lambda row, unit: getattr(row.completion, unit)
    parts["both"] = lambda row, unit: getattr(row.prompt, unit) + getattr(row.completion, unit)
    lines = [f"{f'lengths of {len(rows):,} rows':<22}{heads}  at most"]
    for part, length in parts.items():
        for unit in UNITS:
            values = find_percentiles([length(row, unit) for row in rows])
            numbers = "".join(f"{value:>{width},}" for value in values)
            lines.append(f"{part:<11}{unit:<11}{numbers}  {_list_budgets(part, unit, settings)}".rstrip())
    return lines


def find_percentiles(values: Sequence[int]) -> list[int]:
    """Find the percentiles of lengths, each the length of a row (no interpolation).

    >>> find_percentiles(range(1, 101))
    [50, 90, 99, 100]
    """
    ordered = sorted(values)
    return [ordered[max(0, -(-percent * len(ordered) // 100) - 1)] for percent in PERCENTILES.values()]


def _list_budgets(part: str, unit: str, settings: ResolvedSettings) -> str:
    names = {"completion": BUDGETS[:1], "both": BUDGETS[1:]}.get(part, ()) if unit == "tokens" else ()
    return ", ".join(f"{settings.value(name):,} ({name})" for name in names)


def describe_overlong(rows: Sequence[MeasuredRow], settings: ResolvedSettings) -> str:
    """Say how many rows are too long, the first of them by name and schema, and what to change; "" where all fit."""
    found = [row for row in rows if row.tokens and row.fault.startswith(("longer", "completion longer"))]
    if not found:
        return ""
    shown = ", ".join(
        f"{row.name} of {row.schema_id} ({row.prompt.tokens:,} + {row.completion.tokens:,} tokens: {row.fault})"
        for row in found[:SHOWN]
    )
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f"too long for the student: {len(found)} of {len(rows)} rows: {shown}{more}. They are not trained on "
        f"(--overlong refuse stops there instead): give {_advise(found, settings)}"
    )


def _advise(rows: Sequence[MeasuredRow], settings: ResolvedSettings) -> str:
    """What keeps rows that are too long."""
    needed = find_needed(rows, settings)
    flags = " ".join(f"--{kebab_case(name)} {value}" for name, value in needed.items())
    if not needed.keys() & set(BUDGETS[1:]):
        return f"{flags}, or shorter answers"
    rendering = "" if settings.prompt.schema_rendering == "compact" else "--schema-rendering compact, "
    return f"{flags}, {rendering}or smaller schemas"


def find_needed(rows: Sequence[MeasuredRow], settings: ResolvedSettings) -> dict[str, int]:
    """Find the settings that leave out one of these rows, each with the least value that leaves out none."""
    longest, answer = max(row.tokens for row in rows), max(row.completion.tokens for row in rows)
    needed = dict(zip(BUDGETS, (answer, longest, longest), strict=True))
    return {name: value for name, value in needed.items() if value > settings.value(name)}


def check_rows(rows: Mapping[str, CorpusRow], given: AnySettings, table: bool = False) -> list[MeasuredRow]:
    """Say which of the named rows are too long for what trains on them, with a `table` of all lengths.

    Without the table those rows alone are counted in tokens whose bytes leave it open. Returns what was measured.
    """
    choice = choose_student(given)
    settings = resolve_auto(given, choice.kind)
    doubtful = rows if table else {name: row for name, row in rows.items() if not _surely_fits(row, settings)}
    if not doubtful:
        return []
    try:
        tokenizer = load_tokenizer(choice.base)
    except OSError:
        log.warning(f"lengths in tokens are not known: the tokenizer of {choice.base} is not in reach here")
        return []
    measured = [measure_row(name, row, tokenizer, settings) for name, row in doubtful.items()]
    if table:
        _say_all(list_lengths(measured, settings))
    if overlong := describe_overlong(measured, settings):
        log.warning(overlong.replace(f"of {len(measured)} rows", f"of {len(rows)} rows"))
    return measured


def _surely_fits(row: CorpusRow, settings: ResolvedSettings) -> bool:
    """Whether a row fits whatever its tokens are: none has less than a byte, and few are the template's."""
    if not isinstance(row.prompt, str):
        return False
    answer, prompt = len(row.completion.encode()), len(row.prompt.encode())
    most, answer_most = min(map(settings.value, BUDGETS[1:])), settings.generation.max_new_tokens
    return answer < answer_most and prompt + answer < most * MOST_BYTES


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:
        log.info(line)
