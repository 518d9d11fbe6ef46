"""Find answers that are degenerate: nothing at all, one piece over and over, or far longer than what was asked."""

from __future__ import annotations

import json
import re

from schema_student.core.records import EvaluationRow
from schema_student.schema.ranks import RIGHT

REPEATED = re.compile(r"(.{1,60}?)\1{4,}", re.DOTALL)  # five times in a row
LEAST_REPEATED = 40  # characters of a run that are no number, name or indent
TIMES_LONGER = 3  # than the target, and by more than LEAST_LONGER characters
LEAST_LONGER = 100
KINDS = ("empty", "repeating", "far longer than the target")


def find_degeneration(row: EvaluationRow) -> str | None:
    """Find in which way an answer that is not right is degenerate, one of KINDS; None where it is in none.

    What is right is never called so: a target may repeat, too.
    """
    text = row.raw_output
    if row.rank == RIGHT or row.too_long:
        return None
    if not text.strip():
        return "empty"
    if any(len(found[0]) >= LEAST_REPEATED for found in REPEATED.finditer(text)):
        return "repeating"
    if row.target is None:
        return None
    expected = len(json.dumps(row.target, ensure_ascii=False, separators=(",", ":")))
    longer = len(text) > TIMES_LONGER * expected and len(text) > expected + LEAST_LONGER
    return "far longer than the target" if longer else None
