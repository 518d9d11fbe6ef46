"""Check semantic rules, which JSON Schema cannot say: the root annotation `x-rules`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from schema_student.schema.structure import json_pointer
from schema_student.schema.violations import Violation


@dataclass(frozen=True)
class Rule:
    """One entry of `x-rules`; `path` is split into its parts."""

    name: str
    path: tuple[str, ...]
    start: str
    end: str


def _date_order(value: Any, rule: Rule) -> Violation | None:
    for part in rule.path:
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return None
    start, end = _moment(value.get(rule.start)), _moment(value.get(rule.end))
    if start is None or end is None or start <= end:
        return None
    message = f'{rule.end} "{value[rule.end]}" is before {rule.start} "{value[rule.start]}"'
    return Violation(json_pointer((*rule.path, rule.end)), "x-rules/date_order", message)


def _moment(text: Any) -> datetime.datetime | None:
    """A date or date-time, None if it is neither: then `format` says so."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


RULES = {"date_order": _date_order}
