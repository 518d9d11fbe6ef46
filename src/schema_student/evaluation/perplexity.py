"""Measure how likely a student finds reference answers: perplexity on any rows; what it writes itself; its size.

Perplexity is exp(-sum log p / N), log p in nats of the completions with the end of their turn, N their tokens; by
character N counts the characters of the completions, which makes models of different tokenizers comparable.

    rows = read_reference_rows(settings)
    measure_perplexity(load_student(settings), rows, settings)["overall"]["perplexity_a_token"]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schema_student.core.jsonl import Row
from schema_student.core.places import shown_place
from schema_student.core.records import CorpusRow
from schema_student.core.settings import ResolvedSettings
from schema_student.core.splits import spread
from schema_student.data.dataset_statistics import compute_distinct
from schema_student.data.dedup import WORD
from schema_student.data.examples import make_example
from schema_student.data.row_lengths import PERCENTILES, find_percentiles
from schema_student.evaluation.evaluate import find_requests
from schema_student.evaluation.rates import compute_perplexity
from schema_student.preference.imports import read_corpus
from schema_student.student.loading import Student
from schema_student.student.tokens import TurnsRefused

if TYPE_CHECKING:
    from schema_student.student.batching import Ids

BATCH_TOKENS = 16384  # of a batch that is read
GRAMS = (1, 2, 3)
SHOWN = {  # of what is measured -> what it is called, and how it is written
    "rows": ("rows", ",d"),
    "left_out": ("left out: too long, or refused by the template", ",d"),
    "perplexity_a_token": ("perplexity a token", ".4f"),
    "perplexity_a_character": ("perplexity a character", ".4f"),
    "nats_an_answer": ("-log p of an answer, nats", ".3f"),
    "tokens": ("tokens of reference answers", ",d"),
    "characters": ("characters of them", ",d"),
}


def read_reference_rows(settings: ResolvedSettings) -> list[CorpusRow]:
    """Read the rows to measure on: of --data-set, else of --eval-data or the run's --eval-splits those with answers."""
    if settings.data.data_set:
        return read_corpus(settings)
    requests = find_requests(settings)
    return [make_example(row, settings.prompt.schema_rendering) for row in requests if row.target is not None]


def measure_perplexity(student: Student, rows: Sequence[CorpusRow], settings: ResolvedSettings) -> Row:
    """Measure the perplexity of reference answers: {overall, splits: {split: ...}}, each as `summarize_logps` says.

    A row above max_seq_length, and one that the chat template refuses, is left out and counted.
    """
    from schema_student.student import batching, reading

    encoded = [(row, ids) for row in rows if (ids := _encode(student, row, settings))]
    size, trees = int(settings.decoding.eval_batch_size), batching.supports_prompt_trees(student.model)
    logps = reading.read_logps(student, [ids for _, ids in encoded], size, BATCH_TOKENS, trees, None)
    read = [
        (row.split, logp, len(ids.completion_ids), len(row.completion))
        for (row, ids), logp in zip(encoded, logps, strict=True)
    ]
    splits = {
        split: summarize_logps([each[1:] for each in read if each[0] == split])
        for split in dict.fromkeys(each[0] for each in read)
    }
    overall = {**summarize_logps([each[1:] for each in read]), "left_out": len(rows) - len(read)}
    return {"overall": overall, "splits": splits}


def _encode(student: Student, row: CorpusRow, settings: ResolvedSettings) -> Ids | None:
    from schema_student.student import batching

    try:
        ids = batching.encode(student.tokenizer, row.prompt, row.completion, **row.context)
    except TurnsRefused:
        return None
    return ids if len(ids) <= settings.length.max_seq_length else None


def summarize_logps(read: Sequence[tuple[float, int, int]]) -> Row:
    """Summarize (log p in nats, tokens, characters) of answers; perplexities are null where there is none.

    >>> found = summarize_logps([(2 * math.log(0.5), 2, 4), (4 * math.log(0.5), 4, 8)])
    >>> found["perplexity_a_token"], found["perplexity_a_character"]
    (2.0, 1.414214)
    """
    nats, tokens, characters = -math.fsum(each[0] for each in read), sum(e[1] for e in read), sum(e[2] for e in read)
    return {
        "rows": len(read),
        "tokens": tokens,
        "characters": characters,
        "perplexity_a_token": compute_perplexity(nats, tokens),
        "perplexity_a_character": compute_perplexity(nats, characters),
        "nats_an_answer": round(nats / len(read), 6) if read else None,
    }


def describe_texts(texts: Sequence[str], tokenizer: Any) -> Row:
    """Describe how varied and how long texts are: distinct-1, -2, -3 of their words; percentiles of their lengths."""
    words = [WORD.findall(text.casefold()) for text in texts]
    tokens = [len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts]
    lengths = {"characters": [*map(len, texts)], "tokens": tokens}
    return {
        "texts": len(texts),
        **{f"distinct_{n}": compute_distinct(words, n) for n in GRAMS},
        **{unit: dict(zip(PERCENTILES, find_percentiles(each), strict=True)) for unit, each in lengths.items() if each},
    }


def describe_answers(student: Student, rows: Sequence[CorpusRow], count: int, settings: ResolvedSettings) -> Row:
    """Describe the student's own greedy answers to `count` of the rows, evenly spread; `finished` by themselves."""
    from schema_student.student.generation import generate

    prompts = [row.prompt for row in spread(list(rows), count)]
    budget, size = settings.generation.max_new_tokens, int(settings.decoding.eval_batch_size)
    made = [each for (each,) in generate(student, prompts, budget, size)]
    found = describe_texts([each.text for each in made], student.tokenizer)
    return {**found, "finished": sum(each.finished for each in made)}


def count_parameters(model: Any) -> Row:
    """Count a model's parameters, and those of its adapter; weights that are shared count once."""
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    return {"total": sum(sizes.values()), "trainable": sum(n for name, n in sizes.items() if ".lora_" in name)}


def list_lines(measured: Mapping[str, Row]) -> list[str]:
    """List what was measured of each model, models side by side."""
    names, first = list(measured), next(iter(measured.values()))
    lines = [_line("", [shown_place(name)[-22:] for name in names])]
    for key, (name, how) in SHOWN.items():
        lines.append(_line(name, [_write(measured[each]["overall"][key], how) for each in names]))
    for split in first["splits"]:
        values = [measured[each]["splits"].get(split, {}).get("perplexity_a_token") for each in names]
        lines.append(_line(f"perplexity a token, {split}", [_write(value, ".4f") for value in values]))
    for part in ("references", "answers"):
        lines += _list_texts(part, [measured[each].get(part) for each in names])
    for key in ("total", "trainable"):
        lines.append(_line(f"parameters, {key}", [_write(measured[each]["parameters"][key], ",d") for each in names]))
    return lines


def _list_texts(part: str, found: Sequence[Row | None]) -> list[str]:
    """Lines on texts of each model; [] where none has any."""
    if not all(found):
        return []
    known = [each for each in found if each]
    lines = [_line(f"{part}, distinct-{n}", [_write(each[f"distinct_{n}"], ".4f") for each in known]) for n in GRAMS]
    for unit in ("characters", "tokens"):
        said = [", ".join(f"{value:,}" for value in each[unit].values()) for each in known]
        lines.append(_line(f"{part}, {unit}: {', '.join(PERCENTILES)}", said))
    if part == "answers":
        lines.append(_line("answers that ended by themselves", [f"{e['finished']} of {e['texts']}" for e in known]))
    return lines


def _write(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def _line(name: str, values: Sequence[str]) -> str:
    return f"{name:<48}" + "".join(f"  {value:>22}" for value in values)
