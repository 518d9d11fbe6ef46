"""Explain why a value is not valid: go down from the root only where a part is not valid, within a budget.

jsonschema-rs decides, and words what a subschema says without others. What it says by others is walked here: to collect
the errors of nested unions costs the number of alternatives to the power of their depth, to ask which are valid little.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from schema_student.schema.applicators import Walk
from schema_student.schema.subschemas import Subschema, Subschemas
from schema_student.schema.violations import Fault, Violation, make_fault, show_value

MAX_VIOLATIONS = 100  # of one value
MAX_STEPS = 20_000  # pairs of a subschema and a value in which faults are looked for
MAX_SECONDS = 0.3


def explain(parts: Subschemas, value: Any) -> tuple[Violation, ...]:
    """Find the violations of a value that is not valid; a union's failure is told by its nearest alternative.

    At most MAX_VIOLATIONS are found, in MAX_STEPS and MAX_SECONDS; the last one says where there may be more.
    """
    explainer = _Explainer(parts)
    try:
        faults = explainer.explain(parts.root, value, "")
    except (RecursionError, ValueError):  # ValueError: jsonschema-rs hands no value out that nests so deep
        faults = (make_fault("", "$ref", "nested too deep to say what is not valid"),)
    faults = faults or (_not_looked_at(parts.root, value, ""),)
    found = list(dict.fromkeys(fault.violation for fault in faults))
    if explainer.cut:
        last = found[-1]
        found[-1] = Violation(last.path, last.keyword, f"{last.message} (there may be more: not all was looked at)")
    return tuple(found)


class _Explainer:
    """Finds the faults in one value; each pair of a subschema and a place in the value is looked at once."""

    def __init__(self, parts: Subschemas) -> None:
        self.parts = parts
        self.walk = Walk(parts, self.explain)
        self.cut = False
        self.steps = MAX_STEPS
        self.deadline = time.thread_time() + MAX_SECONDS
        self.found: dict[tuple[str, str], tuple[Fault, ...]] = {}

    def explain(self, part: Subschema, value: Any, path: str) -> tuple[Fault, ...]:
        """Find the faults of a value by a part of the schema, none where it is valid."""
        part = self.parts.resolve(part)
        key = part.pointer, path
        if key in self.found:
            return self.found[key]
        self.found[key] = ()  # for a schema that comes back to itself at the same place
        if self.parts.is_valid(part, value):
            return ()
        self.steps -= 1
        if self.steps < 0 or time.thread_time() > self.deadline:
            self.cut = True
            return (_not_looked_at(part, value, path),)
        self.found[key] = self._find(part, value, path)
        return self.found[key]

    def _find(self, part: Subschema, value: Any, path: str) -> tuple[Fault, ...]:
        found = list(islice(self.walk.find(part, value, path), MAX_VIOLATIONS + 1))
        faults = tuple(dict.fromkeys(found or self.walk.find_unevaluated(part, value, path)))
        self.cut |= len(found) > MAX_VIOLATIONS
        return faults[:MAX_VIOLATIONS] or (_not_looked_at(part, value, path),)


def _not_looked_at(part: Subschema, value: Any, path: str) -> Fault:
    keyword = next((key for key in part.schema if key.startswith("$dynamic") or key.startswith("$recursive")), "$ref")
    return make_fault(path, keyword, f"{show_value(value)} is not valid, and what is wrong in it was not looked at")
