"""Import data of any origin: the pairs, or the corpus, that the trainers read.

Reads a file, a folder or a data set of the hub (--data-set, data_files.py) in any common layout (layouts.py); writes
dpo_pairs.jsonl for DPO, d_04_training_corpus.jsonl for SFT, of a run that is named after the data.

A row that cannot be read, and one that nothing can be learned from (nothing answered, chosen equal to rejected), is
left out, counted by reason, and said with its file and line; columns that nothing reads are named with the number of
their rows. Where more than half of the rows cannot be read the import stops: the layout is another one.
A tenth of the prompts is held out (split "validation"), where the rows do not say so themselves. A prompt is all that
the student reads: the same words with other tools are another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, Pair
from schema_student.core.settings import AnySettings
from schema_student.core.splits import smaller_limit, spread
from schema_student.core.stamps import make_stamp
from schema_student.core.tally import Tally
from schema_student.preference.data_files import find_data_files, load_rows
from schema_student.preference.layouts import Example, expand, read_row
from schema_student.preference.mixing import Part, mix, parse_mix
from schema_student.preference.turns import Malformed, Unusable

Numbered = Sequence[tuple[str, Row]]
Read = Callable[[Numbered, Tally], Iterable[Pair | CorpusRow]]

LEARNS_CHOSEN = "rejected (SFT learns the chosen answer alone)"
SHOWN_CHARACTERS = 400  # of a turn of the example that a dry run shows


# ---------------------------------------------------------------------------------------------------------------------
# The steps


def import_pairs(settings: AnySettings) -> Path:
    """Write dpo_pairs.jsonl of --data-set; raises UserError where most rows cannot be read or no pair is left."""
    return _import(settings, paths(settings).pairs, ("data", "pairs"), _pairs_of(settings))


def import_corpus(settings: AnySettings) -> Path:
    """Write d_04_training_corpus.jsonl of --data-set: examples, or the chosen answers of preference data."""
    return _import(settings, paths(settings).corpus, ("data",), read_examples)


def _pairs_of(settings: AnySettings) -> Read:
    return lambda rows, tally: read_pairs(rows, tally, settings.pairs.pairs_per_prompt)


def _import(settings: AnySettings, path: Path, deciding: Sequence[str], read: Read) -> Path:
    """Write the rows that `read` makes of --data-set; `deciding` are the groups of settings of its stamp."""
    files = [file for source, _ in _list_sources(settings) for file in find_data_files(source)]
    with open_artifact(path, make_stamp(settings, *deciding, "mix"), files, settings.run.overwrite) as artifact:
        if artifact.done:
            return path
        found, tally = read_data_set(settings, read)
        for row in found[len(artifact.rows) :]:
            artifact.append(row.as_json())
        artifact.finish({"rows": len(found), **tally.facts()})
    return path


def _list_sources(settings: AnySettings) -> list[tuple[str, float]]:
    """The data sets to read, each with its share."""
    return parse_mix(_require_data_set(settings), settings.mix.mix)


def read_data_set(settings: AnySettings, read: Read) -> tuple[list[Pair | CorpusRow], Tally]:
    """Read --data-set, and what --mix adds to it; says what became of the rows. Raises UserError as the imports do."""
    tally = Tally()
    parts = [
        Part(source, share, _read_source(source, limit_rows(settings), read, tally))
        for source, share in _list_sources(settings)
    ]
    return mix(parts, settings.run.seed, tally) if len(parts) > 1 else list(parts[0].rows), tally


def limit_rows(settings: AnySettings) -> int:
    """Return how many rows of a data set are read: --data-limit, or fewer by --max-samples; 0 = all."""
    return smaller_limit(settings.data.data_limit, settings.part.max_samples)


def _read_source(source: str, limit: int, read: Read, whole: Tally) -> list[Pair | CorpusRow]:
    """Read one data set; what is left out is said, and added to the `whole` tally."""
    tally = Tally()
    loaded = load_rows(source, tally)
    total = len(loaded) + sum(tally.counts.values())
    if not total:
        raise UserError(f"{source} has no rows")
    rows = take(loaded, limit)
    if len(rows) < len(loaded):
        log.info(f"  {len(rows)} of {len(loaded)} rows of {source}, by --data-limit or --max-samples")
    found = list(read(rows, tally))
    for line in (*tally.notes(), *tally.lines()):
        log.info(f"  {line}")
    if 2 * tally.malformed > total - len(loaded) + len(rows):
        raise UserError(_explain_unread(source, tally, total))
    if not found:
        raise UserError(f"{source} has nothing to train on in {total} rows; {'; '.join(tally.lines())}")
    held_out = sum(row.split != "train" for row in found)
    log.info(f"  {len(found)} rows from {total} of {source}, {held_out} of them held out")
    whole.merge(tally)
    return found


def check_pairs(settings: AnySettings) -> None:
    """Read --data-set as import_pairs does for a dry run, and show its first pair. Raises UserError as a run does."""
    _check(settings, _pairs_of(settings))


def check_corpus(settings: AnySettings) -> None:
    """Read --data-set as import_corpus does for a dry run, and show its first row. Raises UserError as a run does."""
    _check(settings, read_examples)


def read_corpus(settings: AnySettings) -> list[CorpusRow]:
    """Read --data-set as import_corpus does, and write nothing; raises UserError as it does."""
    found, _ = read_data_set(settings, read_examples)
    return [row for row in found if isinstance(row, CorpusRow)]


def _check(settings: AnySettings, read: Read) -> None:
    source = _require_data_set(settings)
    if all(find_data_files(each) for each, _ in _list_sources(settings)):
        found, _ = read_data_set(settings, read)
        log.info("\n".join(f"  {line}" for line in show_example(found[0])))
    else:
        log.info(f"  {source} would be read from the hub, which a dry run does not ask")


def show_example(row: Pair | CorpusRow) -> Iterator[str]:
    """Write a row as people read it: what is asked, turn by turn, and how it is answered."""
    yield f"the first of them ({row.origin}):"
    if row.tools:
        yield f"  tools: {_shorten(str([tool.get('function', tool).get('name') for tool in row.tools]))}"
    turns = [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else row.prompt
    for turn in turns:
        yield f"  {turn['role']}: {_shorten(turn['content'])}" + (" (calls a tool)" if turn.get("tool_calls") else "")
    answers = ("chosen", "rejected") if isinstance(row, Pair) else ("completion",)
    yield from (f"  {name}: {_shorten(getattr(row, name))}" for name in answers)


def _shorten(text: str) -> str:
    """A text on one line, escapes of terminals and all but its beginning left out."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}..."


def _require_data_set(settings: AnySettings) -> str:
    if not settings.data.data_set:
        raise UserError(
            "give --data-set a file, a folder or the id of a data set of the hub; --help shows what rows hold"
        )
    return settings.data.data_set


def _explain_unread(source: str, tally: Tally, total: int) -> str:
    what = f"{source}: {tally.malformed} of {total} rows cannot be read ({'; '.join(tally.lines())})"
    return f"{what}. Bring them into one of the layouts of docs/your_own_data.md, or take them out"


def take(rows: Sequence[Any], limit: int) -> Sequence[Any]:
    """Take `limit` rows, evenly spread; 0 = all."""
    return spread(rows, limit or len(rows))


# ---------------------------------------------------------------------------------------------------------------------
# Rows -> pairs, rows -> examples


def read_pairs(rows: Numbered, tally: Tally, most: int) -> Iterator[Pair]:
    """Read rows as those of dpo_pairs.jsonl; `most` of each judged prompt, and of each whose answers are labelled."""
    labelled: dict[str, list[tuple[str, Example]]] = {}
    for where, example in _read_rows(rows, tally, most):
        if example.label is not None:
            labelled.setdefault(example.digest, []).append((where, example))
            continue
        try:
            yield _pair(example, example.answered.rejected, where)
        except Unusable as reason:
            tally.add(str(reason), where)
    for answers in labelled.values():
        yield from _pair_labelled(answers, tally, most)


def _pair_labelled(answers: Sequence[tuple[str, Example]], tally: Tally, most: int) -> Iterator[Pair]:
    """Pair the good answers to one prompt with the bad ones (KTO's label)."""
    good = [each for each in answers if each[1].label]
    bad = [each for each in answers if not each[1].label]
    if not good or not bad:
        for where, _ in answers:
            tally.add("no answer of the other label to this prompt (train-sft learns those with label true)", where)
        return
    for i in range(min(most, len(bad))):
        where, example = good[i % len(good)]
        try:
            yield _pair(example, bad[i][1].answered.chosen, where)
        except Unusable as reason:
            tally.add(str(reason), where)


def read_examples(rows: Numbered, tally: Tally) -> Iterator[CorpusRow]:
    """Read rows as those of d_04_training_corpus.jsonl: the answer, or the chosen one."""
    for where, example in _read_rows(rows, tally, 1):
        if example.label is False:
            tally.add("label false: the answer is a bad one", where)
        elif not example.answered.chosen.strip():
            tally.add("nothing answered", where)
        else:
            tally.unused.update([LEARNS_CHOSEN] * (example.answered.rejected is not None))
            yield CorpusRow(
                schema_id=example.told.get("schema_id", example.digest),
                domain=example.told.get("domain", ""),
                prompt=example.prompt,
                completion=example.answered.chosen,
                is_valid=True,
                split=example.split,
                origin=_name(where),
                **example.context,
            )


def _read_rows(rows: Numbered, tally: Tally, most: int) -> Iterator[tuple[str, Example]]:
    """Read each row by its own layout; what cannot be read is counted."""
    for where, row in rows:
        try:
            for each in expand(row, most):
                example = read_row(each)
                tally.take(example.answered.layout, example.unused)
                yield where, example
        except Unusable as reason:
            tally.add(str(reason), where, malformed=isinstance(reason, Malformed))


def _pair(example: Example, rejected: str | None, where: str) -> Pair:
    """A row of dpo_pairs.jsonl; raises Unusable."""
    chosen = example.answered.chosen
    if rejected is None:
        raise Unusable("no rejected answer (train-sft takes such rows)")
    if not example.answered.one_prompt:
        raise Unusable("the prompts of chosen and rejected differ")
    if not chosen.strip() or not rejected.strip():
        raise Unusable("nothing answered")
    if chosen == rejected:
        raise Unusable("chosen equals rejected")
    if chosen.strip() == rejected.strip():
        raise Unusable("chosen and rejected differ in white space only")
    told = {"schema_id": example.digest, "source": example.answered.layout, **example.told}
    told.pop("domain", None)
    return Pair(
        prompt=example.prompt,
        chosen=chosen,
        rejected=rejected,
        split=example.split,
        origin=_name(where),
        **example.context,
        **told,
    )


def _name(where: str) -> str:
    """The place of a row without the folders above its file."""
    return where.rsplit("/", 1)[-1]
