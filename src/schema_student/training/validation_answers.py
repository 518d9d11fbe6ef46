"""Answer validation requests while training: a fixed sample, drawn by the seed, answered greedily and graded.

The loss of right answers says how likely they are token by token; these shares say what comes of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.records import CorpusRow, DatasetRow, read_rows
from schema_student.core.settings import ResolvedSettings
from schema_student.preference.requests import Request
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.student.generation import generate
from schema_student.student.loading import Student
from schema_student.training.distributed import gather, own_share

AT_ONCE = 64  # answers written together


def draw_asked(corpus: Sequence[CorpusRow], dataset: Path | None, settings: ResolvedSettings) -> list[Request]:
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
    asked = [Request(known[key], str(row.prompt)) for row, key in keyed if key in known]
    rng = random.Random(f"validation answers {settings.run.seed}")
    drawn = rng.sample(range(len(asked)), min(count, len(asked)))
    return [asked[i] for i in sorted(drawn)]


def measure_answers(student: Student, asked: Sequence[Request], max_new_tokens: int) -> dict[str, float]:
    """Compute eval_valid and eval_as_asked, shares of the eval_answers requests."""
    valid, right = zip(*grade_answers(student, asked, max_new_tokens), strict=True)
    count = len(asked)
    return {"eval_answers": count, "eval_valid": sum(valid) / count, "eval_as_asked": sum(right) / count}


def grade_answers(student: Student, asked: Sequence[Request], max_new_tokens: int) -> list[tuple[bool, bool]]:
    """Answer requests greedily and grade the answers: whether each is valid, and right.

    Each process answers its share of them; all get all grades, in the order of the requests.
    """
    own = own_share(list(range(len(asked))))
    written = generate(student, [asked[i].prompt for i in own], max_new_tokens, AT_ONCE) if own else []
    graded = []
    for i, (answer,) in zip(own, written, strict=True):
        row = asked[i].row
        found = grade(answer.text, compile_schema(row.schema, row.schema_id), row.target, row.accepted)
        graded.append((i, found.verdict.schema_valid, found.right))
    return [(valid, right) for _, valid, right in sorted(gather(graded))]
