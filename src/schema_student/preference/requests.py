"""Draw the requests that pairs and rollouts are made of, with their prompts.

They come from the alignment split of d_03: training schemas, but requests that SFT has not seen, because a student
asked what it was trained on makes too few mistakes; and not those of the tests. Without such a split they are the
training requests.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.records import CorpusRow, DatasetRow
from schema_student.core.settings import ResolvedSettings
from schema_student.core.splits import say_part
from schema_student.preference.held_out import prompt_digest
from schema_student.schema.prompts import render_row_prompt


@dataclass(frozen=True)
class Request:
    """A row of d_03 and the prompt that a student is given for it."""

    row: DatasetRow
    prompt: str

    @property
    def digest(self) -> str:
        return prompt_digest(self.prompt)


def anchor_of(request: Request, answer: str) -> CorpusRow:
    """Make a row of dpo_anchors.jsonl: a request that the student answers right, and that answer."""
    row = request.row
    return CorpusRow(
        schema_id=row.schema_id,
        domain=row.domain,
        prompt=request.prompt,
        completion=answer,
        is_valid=True,
        split="train",
    )


def anchors_beside(pairs: Path) -> Path:
    """Locate the anchors of pairs."""
    return pairs.with_name("dpo_anchors.jsonl")


def draw_requests(dataset: Sequence[DatasetRow], settings: ResolvedSettings) -> list[Request]:
    """Draw the valid rows that pairs may be made of, with their prompts, schema by schema in turn, by seed."""
    valid = [row for row in dataset if row.is_valid]
    rows = [row for row in valid if row.split == "alignment"] or [row for row in valid if row.split == "train"]
    random.Random(f"pairs {settings.run.seed}").shuffle(rows)
    turn: Counter[str] = Counter()
    order = []
    for row in rows:
        order.append(turn[row.schema_id])
        turn[row.schema_id] += 1
    drawn = [row for _, row in sorted(zip(order, rows, strict=True), key=_first)]
    most = settings.part.max_samples or len(drawn)
    say_part(len(drawn), settings.part.max_samples, "requests to align on")
    return [Request(row, render_row_prompt(row, settings.prompt.schema_rendering)) for row in drawn[:most]]


def _first(item: tuple[int, Any]) -> int:
    return item[0]


def take_together(requests: Sequence[Request], count: int) -> list[Request]:
    """Take the first `count` requests, those of a schema together: in a chunk they share its computation."""
    return sorted(requests[:count], key=lambda request: request.row.schema_id)
