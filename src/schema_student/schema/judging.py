"""JSON Schemas as judges: compile one, judge a text against it, compare what two answers mean.

`judge` is the one place where a verdict is made: dataset, evaluation, pairs and teacher all call it. jsonschema-rs
decides (formats checked, nothing fetched); what JSON Schema cannot say stands in a root annotation `x-rules`, e.g.
{"rule": "date_order", "path": "/timeframe", "start": "start", "end": "end"}.
Ranks, worst first: 0 not JSON; 1 wrong type or shape; 2 required missing or property unexpected; 3 enum, const, format,
bounds or semantic rule; 4 valid, but not what was asked; 5 valid and what was asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from schema_student.schema.compiling import CompiledSchema
from schema_student.schema.explaining import NOT_JSON, VALID, VALID_AND_MEANT, Violation, explain_error
from schema_student.schema.parsing import parse_strict
from schema_student.schema.rules import RULES


@dataclass(frozen=True)
class Verdict:
    """What `judge` found. `rank` is that of the worst violation; a valid answer has 4 until its meaning is known."""

    parsed: bool
    value: Any
    parse_error: str | None
    schema_valid: bool
    violations: tuple[Violation, ...]
    rank: int
    fences_stripped: bool

    def meaning(self, ok: bool) -> int:
        """The rank once it is known whether the answer means what was asked."""
        return VALID_AND_MEANT if self.schema_valid and ok else self.rank


# Compile


# Parse


# Judge


def judge(text: str, schema: CompiledSchema, strip_fences: bool = False) -> Verdict:
    """The verdict on a model's raw output.

    >>> judge('{"n": "2"}', compile_schema({"properties": {"n": {"type": "integer"}}})).violations
    (Violation(path='/n', keyword='type', message='"2" is not of type "integer"'),)
    """
    fence = _FENCE.fullmatch(text) if strip_fences else None
    value, error = parse_strict(fence.group(1) if fence else text)
    if error is not None:
        return Verdict(False, None, error, False, (), NOT_JSON, fence is not None)
    violations = find_violations(value, schema)
    rank = min((violation.rank for violation in violations), default=VALID)
    return Verdict(True, value, None, not violations, violations, rank, fence is not None)


_FENCE = re.compile(r"\s*```[A-Za-z]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


def find_violations(value: Any, schema: CompiledSchema) -> tuple[Violation, ...]:
    """What is wrong with a parsed value, () if nothing; a union's failure is told by its nearest alternative."""
    broken = tuple(violation for rule in schema.rules if (violation := RULES[rule.name](value, rule)))
    if schema.validator.is_valid(value):
        return broken
    found = [violation for error in schema.validator.iter_errors(value) for violation in explain_error(error)]
    return tuple(dict.fromkeys(found)) + broken


# Semantic rules: what JSON Schema cannot say.


# Meaning
