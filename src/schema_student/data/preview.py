"""Preview rows as the model sees them: the prompt in its chat template, what is supervised, and what is left out.

for line in preview_rows({"d_04_training_corpus.jsonl:1": row}, settings, 3):
    print(line)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from schema_student.core.records import CorpusRow
from schema_student.core.settings import AnySettings, ResolvedSettings, resolve_auto
from schema_student.core.splits import spread
from schema_student.data.row_lengths import MeasuredRow, describe_overlong, list_lengths, measure_row
from schema_student.student.choice import choose_student
from schema_student.student.loading import load_tokenizer
from schema_student.student.tokens import encode_completion, encode_prompt

READ, SUPERVISED = "|", ">"  # what a line begins with that is only read, and one whose tokens have a loss


def preview_rows(rows: Mapping[str, CorpusRow], given: AnySettings, count: int, tokens: bool = False) -> Iterator[str]:
    """Show `count` of the named rows, evenly spread, as the chosen student reads them; then the lengths of all.

    With `tokens` each token with its id, a line each. Raises OSError where the base's tokenizer is not in reach.
    """
    choice = choose_student(given)
    settings, tokenizer = resolve_auto(given, choice.kind), load_tokenizer(choice.base)
    yield f"as {choice.name} reads them ({READ} read, {SUPERVISED} supervised: the loss is of these tokens alone)"
    measured = {name: measure_row(name, row, tokenizer, settings) for name, row in rows.items()}
    for name in spread(list(rows), count):
        yield from ("", describe_row(rows[name], measured[name], settings))
        if measured[name].tokens:
            yield from show_row(rows[name], tokenizer, tokens)
    found = list(measured.values())
    yield from ("", *list_lengths(found, settings))
    yield describe_overlong(found, settings) or "no row is too long; none is ever cut"


def describe_row(row: CorpusRow, measured: MeasuredRow, settings: ResolvedSettings) -> str:
    """Say in a line where a row is from, how long it is, and what becomes of it."""
    prompt, completion = measured.prompt, measured.completion
    length = f"{prompt.characters + completion.characters:,} characters, {prompt.bytes + completion.bytes:,} bytes"
    length += f", {measured.tokens:,} tokens ({prompt.tokens:,} read, {completion.tokens:,} supervised)"
    return f"{measured.name}, schema {row.schema_id}, {row.split}: {length}; {_say_fate(row, measured, settings)}"


def _say_fate(row: CorpusRow, measured: MeasuredRow, settings: ResolvedSettings) -> str:
    if not row.is_valid:
        return "left out: its answer is not valid"
    if not measured.fault:
        return "whole"
    return f"{'refused' if settings.optimizer.overlong == 'refuse' else 'left out'}: {measured.fault}"


def show_row(row: CorpusRow, tokenizer: Any, tokens: bool = False) -> Iterator[str]:
    """Write a row's tokens as text, its lines marked by whether they are supervised; or a line a token with its id."""
    prompt_ids = encode_prompt(tokenizer, row.prompt, **row.context)
    place = 0
    for mark, part in ((READ, prompt_ids), (SUPERVISED, encode_completion(tokenizer, row.completion))):
        if tokens:
            for token in part:
                yield f"{mark} {place:>6} {token:>7}  {tokenizer.decode([token])!r}"
                place += 1
        else:
            text = tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            yield from (f"{mark} {line}" for line in text.removesuffix("\n").split("\n"))
