"""Judge a text against a schema: the one place where a verdict is made.

Dataset, evaluation, pairs and teacher all call `judge`. jsonschema-rs decides (formats checked, nothing fetched); what
JSON Schema cannot say stands in a root annotation `x-rules`, e.g.
{"rule": "date_order", "path": "/timeframe", "start": "start", "end": "end"}.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from schema_student.schema.compiling import CompiledSchema
from schema_student.schema.explaining import explain
from schema_student.schema.parsing import parse_strict
from schema_student.schema.ranks import NOT_JSON, VALID
from schema_student.schema.rules import RULES
from schema_student.schema.violations import Violation

FENCE = "```"
OPENING = re.compile(r"[A-Za-z]*[ \t]*")  # what may stand behind the first fence on its line


@dataclass(frozen=True)
class Verdict:
    """What `judge` found. `rank` is that of the worst violation; a valid answer has VALID: `grade` knows more."""

    parsed: bool
    value: Any
    parse_error: str | None
    schema_valid: bool
    violations: tuple[Violation, ...]
    rank: int
    fences_stripped: bool


def judge(text: str, schema: CompiledSchema, strip_fences: bool = False) -> Verdict:
    """Judge a model's raw output.

    >>> from schema_student.schema.compiling import compile_schema
    >>> judge('{"n": "2"}', compile_schema({"properties": {"n": {"type": "integer"}}})).violations
    (Violation(path='/n', keyword='type', message='"2" is not of type "integer"'),)
    """
    inside = text_in_fences(text) if strip_fences else None
    value, error = parse_strict(text if inside is None else inside)
    if error is not None:
        return Verdict(False, None, error, False, (), NOT_JSON, inside is not None)
    return judge_value(value, schema, inside is not None)


def text_in_fences(text: str) -> str | None:
    """Return what stands between the two fences around a text, None where there are none; in linear time.

    >>> text_in_fences("```json\\n{}\\n```")
    '{}'
    """
    text = text.strip()
    if not (text.startswith(FENCE) and text.endswith(FENCE)):
        return None
    opening, line_end, rest = text.partition("\n")
    if not line_end or not OPENING.fullmatch(opening, len(FENCE)):
        return None
    return rest[: -len(FENCE)].rstrip(" \t").removesuffix("\n")


def judge_value(value: Any, schema: CompiledSchema, fences_stripped: bool = False) -> Verdict:
    """Judge a value that was parsed before."""
    violations = find_violations(value, schema)
    rank = min((violation.rank for violation in violations), default=VALID)
    return Verdict(True, value, None, not violations, violations, rank, fences_stripped)


def is_valid(value: Any, schema: CompiledSchema) -> bool:
    """Return whether a parsed value has no violations, without looking for them."""
    return schema.validator.is_valid(value) and not any(RULES[rule.name](value, rule) for rule in schema.rules)


def find_violations(value: Any, schema: CompiledSchema) -> tuple[Violation, ...]:
    """Find what is wrong with a parsed value, () if nothing; a union's failure is told by its nearest alternative."""
    broken = tuple(violation for rule in schema.rules if (violation := RULES[rule.name](value, rule)))
    if schema.validator.is_valid(value):
        return broken
    return explain(schema.parts, value) + broken
