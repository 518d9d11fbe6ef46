"""Grade an answer by what is known of its request: the one judgement of evaluation, pairs, rollouts and rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schema_student.schema.accepted import Accepted, is_accepted, nearest_target
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import CompiledSchema
from schema_student.schema.judging import Verdict, judge, judge_value
from schema_student.schema.parts import Part, compare_parts, echoes_alike, refuses_alike
from schema_student.schema.query_dsl import is_query_dsl, is_refusal
from schema_student.schema.ranks import RIGHT


@dataclass(frozen=True)
class Grade:
    """A verdict, and what became of the request: `right` where the answer is valid and what was asked.

    `rank` is RIGHT then, else the verdict's. `why` says what decided the rank: the violated path and keyword, or
    "meaning" where the answer is valid. `parts` are those of the answer and of the accepted target nearest to it; ()
    where the answer is not JSON or no target is known.
    """

    verdict: Verdict
    rank: int
    right: bool
    parts: tuple[Part, ...]
    why: str


def grade(
    text: str, schema: CompiledSchema, target: Any = None, accepted: Accepted | None = None, strip_fences: bool = False
) -> Grade:
    """Grade a model's raw output; without a target (None) and accepted alternatives no answer is right.

    >>> from schema_student.schema.compiling import compile_schema
    >>> schema = compile_schema({"properties": {"n": {"type": "integer"}}})
    >>> [grade(text, schema, {"n": 2}).rank for text in ('{"n": 2}', '{"n": 3}', '{"n": "2"}', 'two')]
    [5, 4, 1, 0]
    """
    return _grade(judge(text, schema, strip_fences), schema, target, accepted)


def grade_value(value: Any, schema: CompiledSchema, target: Any = None, accepted: Accepted | None = None) -> Grade:
    """Grade an answer that was parsed before."""
    return _grade(judge_value(value, schema), schema, target, accepted)


def _grade(verdict: Verdict, schema: CompiledSchema, target: Any, accepted: Accepted | None) -> Grade:
    right = verdict.schema_valid and is_right(verdict.value, target, schema.schema, accepted)
    parts: tuple[Part, ...] = ()
    if verdict.parsed and target is not None:
        parts = compare_parts(verdict.value, nearest_target(verdict.value, target, accepted), schema.schema)
    return Grade(verdict, RIGHT if right else verdict.rank, right, parts, _explain(verdict))


def is_right(value: Any, target: Any, schema: dict[str, Any], accepted: Accepted | None = None) -> bool:
    """Return whether a valid value says what the target says, or has every property among the accepted alternatives.

    A query also echoes the request as the target does, and a refusal names what the target's reason says to be missing.

    >>> is_right({"unit": "Km"}, None, {}, {"unit": ["km"], "round": ["", 2]})
    True
    """
    if target is not None and canonical(value, schema) == canonical(target, schema):
        return not is_query_dsl(schema) or _is_worded_alike(value, target)
    return accepted is not None and is_accepted(value, accepted)


def _is_worded_alike(value: Any, target: Any) -> bool:
    return echoes_alike(value, target) and (not is_refusal(value) or refuses_alike(value, target))


def _explain(verdict: Verdict) -> str:
    """Say what decides the rank of an answer: the path and keyword of its worst violation, or its meaning."""
    worst = min(verdict.violations, key=lambda violation: violation.rank, default=None)
    if not verdict.parsed:
        return f"not JSON: {verdict.parse_error}"
    return f"{worst.path or '/'} {worst.keyword}" if worst else "meaning"
