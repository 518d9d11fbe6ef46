"""Answer validation requests while training: a fixed sample, drawn by the seed, answered greedily and graded.

The loss of right answers says how likely they are token by token; these shares say what comes of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schema_student.core.records import CorpusRow, DatasetRow, read_rows
from schema_student.core.settings import ResolvedSettings
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.student.generation import generate
from schema_student.student.loading import Student
from schema_student.training.distributed import gather, own_share

AT_ONCE = 64  # answers written together


@dataclass(frozen=True)
class AskedRow:
    """A validation row: the prompt that the student is given, and what is known of its request."""

    prompt: str
    row: DatasetRow


def draw_asked_rows(corpus: Sequence[CorpusRow], dataset: Path | None, settings: ResolvedSettings) -> list[AskedRow]:
    """Draw sft_eval_answers of the validation rows by the seed, each with its row of the dataset: that has its schema.

    [] where the corpus is not of a dataset.
    """
    count = settings.sft.sft_eval_answers
    if not count or not dataset:
        return []
    known = {
        (row.schema_id, row.current_date, row.query): row
        for row in read_rows(dataset, DatasetRow)
        if row.split == "validation" and row.is_valid
    }
    keyed = [(row, (row.schema_id, row.extra.get("current_date"), row.extra.get("query"))) for row in corpus]
    asked = [AskedRow(str(row.prompt), known[key]) for row, key in keyed if key in known]
    rng = random.Random(f"validation answers {settings.run.seed}")
    drawn = rng.sample(range(len(asked)), min(count, len(asked)))
    return [asked[i] for i in sorted(drawn)]


def measure_answers(student: Student, asked: Sequence[AskedRow], max_new_tokens: int) -> dict[str, float]:
    """Compute eval_valid and eval_as_asked, shares of the eval_answers requests; each process answers its share."""
    own = own_share(list(asked))
    written = generate(student, [each.prompt for each in own], max_new_tokens, AT_ONCE) if own else []
    graded = []
    for each, (answer,) in zip(own, written, strict=True):
        schema = compile_schema(each.row.schema, each.row.schema_id)
        found = grade(answer.text, schema, each.row.target, each.row.accepted)
        graded.append((found.verdict.schema_valid, found.right))
    valid, right = zip(*gather(graded), strict=True)
    count = len(asked)
    return {"eval_answers": count, "eval_valid": sum(valid) / count, "eval_as_asked": sum(right) / count}
