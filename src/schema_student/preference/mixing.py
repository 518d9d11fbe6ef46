"""Mix several data sets by given shares: what each gives, and that none trains on what another holds out.

    sets = parse_mix("mine.jsonl", ["chats.jsonl:0.3"])     # [("mine.jsonl", 0.7), ("chats.jsonl", 0.3)]
    rows = mix(parts, seed=13)                              # parts: a Part a set

A row for training is left out where its prompt, or one nearly like it, is held out in another set. Of what is left so
many rows are taken that the shares hold and no row is taken twice: drawn by digest and seed, the same on each start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.log import log
from schema_student.core.records import CorpusRow, Pair
from schema_student.core.stamps import digest
from schema_student.core.tally import Tally
from schema_student.data.dedup import RequestIndex
from schema_student.preference.held_out import as_text

HELD_OUT = "its prompt, or one nearly like it, is held out in another data set of --mix"
BEYOND = "beyond its data set's share of --mix"
NEAR = 0.8  # share of word pairs in common from which a prompt is nearly another (arXiv 2107.06499)


@dataclass(frozen=True)
class Part:
    """One of several data sets: its rows, and its share of those that are trained on."""

    source: str
    share: float
    rows: Sequence[Pair | CorpusRow]

    @property
    def name(self) -> str:
        """Return its name without the folders above it."""
        return Path(self.source).name


def parse_mix(data_set: str, given: Sequence[str]) -> list[tuple[str, float]]:
    """List the data sets and their shares; the first has what the others leave. Raises SettingsError.

    >>> parse_mix("mine.jsonl", ["chats.jsonl:0.25"])
    [('mine.jsonl', 0.75), ('chats.jsonl', 0.25)]
    """
    others = [_parse(each) for each in given]
    rest = 1 - sum(share for _, share in others)
    if rest <= 1e-9:
        raise SettingsError(f"--mix leaves --data-set {data_set} no share: shares are to sum to less than 1")
    names = [data_set, *(source for source, _ in others)]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise SettingsError(f"--mix names {twice} twice: give it one share")
    return [(data_set, round(rest, 9)), *others]


def _parse(given: str) -> tuple[str, float]:
    source, _, share = given.rpartition(":")
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not source or not 0 < value < 1:
        raise SettingsError(f"--mix {given}: give FILE:SHARE, a data set and its share of the rows, as chats.jsonl:0.3")
    return source, value


def mix(parts: Sequence[Part], seed: int, tally: Tally) -> list[Pair | CorpusRow]:
    """Mix the rows of several data sets; says what each gives, and counts what is left out."""
    apart = _leave_out(parts, tally)
    found: list[Pair | CorpusRow] = []
    for split in ("train", "validation"):
        found += _mix_split([_only(part, split == "train") for part in apart], split, seed, tally)
    return found


def _only(part: Part, trained_on: bool) -> Part:
    """A part with its rows for training alone, or with those that are held out."""
    return replace(part, rows=[row for row in part.rows if (row.split == "train") is trained_on])


def _mix_split(parts: Sequence[Part], split: str, seed: int, tally: Tally) -> list[Pair | CorpusRow]:
    """Mix the rows of a split; raises UserError for a set that has none to train on. One may hold nothing out."""
    if split == "train" and (empty := next((part.source for part in parts if not part.rows), "")):
        raise UserError(f"--mix: {empty} has no row to train on; leave it out")
    total = min((len(part.rows) / part.share for part in parts if part.rows), default=0.0)
    found: list[Pair | CorpusRow] = []
    for part in parts:
        taken = _draw(part.rows, round(total * part.share), seed)
        found += taken
        tally.sources.setdefault(_place(part, parts), {})[split] = len(taken)
        for row in part.rows[len(taken) :]:
            tally.add(BEYOND, row.origin or part.name)
        log.info(f"  {part.name}: {len(taken)} of {len(part.rows)} rows for {split}, a share of {part.share:.0%}")
    return found


def _place(part: Part, parts: Sequence[Part]) -> str:
    """Name a part by its file, with the folder above it where another one has the same name."""
    alone = sum(each.name == part.name for each in parts) == 1
    return part.name if alone else "/".join(Path(part.source).parts[-2:])


def _leave_out(parts: Sequence[Part], tally: Tally) -> list[Part]:
    """The sets without rows for training whose prompts another set holds out."""
    held_out = [_index_held_out(part) for part in parts]
    found = []
    for part, own in zip(parts, held_out, strict=True):
        others = [index for index in held_out if index is not own]
        leaking = [row for row in part.rows if row.split == "train" and _is_among(row, others)]
        for row in leaking:
            tally.add(HELD_OUT, row.origin or part.name)
        if leaking:
            log.info(f"  {part.name}: left out {len(leaking)}: {HELD_OUT} (first: {leaking[0].origin})")
        gone = {id(row) for row in leaking}
        kept = [row for row in part.rows if id(row) not in gone]
        found.append(replace(part, rows=kept))
    return found


def _is_among(row: Pair | CorpusRow, indices: Sequence[RequestIndex]) -> bool:
    return any(index.find_problem(_text(row), "train") for index in indices)


def _index_held_out(part: Part) -> RequestIndex:
    index = RequestIndex(similarity=NEAR, words=0)
    for text in {_text(row) for row in part.rows if row.split != "train"}:
        index.add(text, "validation")
    return index


def _draw(rows: Sequence[Pair | CorpusRow], count: int, seed: int) -> list[Pair | CorpusRow]:
    """Draw so many rows by digest and seed, in their order."""
    order = sorted(range(len(rows)), key=lambda i: digest([seed, i, _text(rows[i])]))
    return [rows[i] for i in sorted(order[:count])]


def _text(row: Pair | CorpusRow) -> str:
    text = as_text(row.prompt)
    return text if isinstance(text, str) else "\n".join(str(turn.get("content") or "") for turn in text)
