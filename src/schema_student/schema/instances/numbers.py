"""Draw a number within bounds, as people write numbers."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

from schema_student.schema.instances.dead_ends import DeadEnd

SPAN = 100  # between the bounds where a schema sets at most one of them, or a step, if that is larger


@dataclass(frozen=True)
class _Bounds:
    """Least and greatest number, and the bounds that are not reached themselves."""

    low: float
    high: float
    open_low: float
    open_high: float

    def allow(self, number: float) -> bool:
        return self.low <= number <= self.high and self.open_low < number < self.open_high


def allows(flat: dict[str, Any], number: float) -> bool:
    """Return whether the bounds of a flat schema allow a number; where it must be a multiple, none is allowed."""
    return "multipleOf" not in flat and _read_bounds(flat).allow(number)


def draw_number(flat: dict[str, Any], kind: str, rng: random.Random) -> int | float:
    """Draw a number of a kind ("integer", "number"); raises DeadEnd where the bounds leave none."""
    bounds = _close(_read_bounds(flat), flat.get("multipleOf", 0))
    try:
        return _draw_within(bounds, flat, kind, rng)
    except (
        OverflowError,
        ZeroDivisionError,
    ):  # bounds beyond a double, or a step so small that a double is no multiple
        allowed = [number for number in (0, bounds.low, bounds.high) if bounds.allow(number)]
        if not allowed:
            raise DeadEnd from None
        return allowed[0]


def _draw_within(bounds: _Bounds, flat: dict[str, Any], kind: str, rng: random.Random) -> int | float:
    step = flat.get("multipleOf", 1 if kind == "integer" else None)
    if step is None:
        return _draw_real(bounds, rng)
    if kind == "integer" and not float(step).is_integer():
        step = 1 if float(1 / step).is_integer() else step
    number = _draw_multiple(step, bounds, rng)
    if kind == "integer":
        return int(number)
    return round(number, 10) if isinstance(number, float) else number


def _read_bounds(flat: dict[str, Any]) -> _Bounds:
    low, high = flat.get("minimum", -math.inf), flat.get("maximum", math.inf)
    open_low, open_high = flat.get("exclusiveMinimum", -math.inf), flat.get("exclusiveMaximum", math.inf)
    if isinstance(open_low, bool):  # draft 4: whether `minimum` itself is excluded
        open_low = low if open_low else -math.inf
    if isinstance(open_high, bool):
        open_high = high if open_high else math.inf
    return _Bounds(max(low, open_low), min(high, open_high), open_low, open_high)


def _close(bounds: _Bounds, step: float) -> _Bounds:
    """Give the bounds that a schema leaves open: near the other one, or people's small numbers."""
    low, high, span = bounds.low, bounds.high, max(SPAN, step)
    if low == -math.inf:
        low = min(1, high - span) if high != math.inf else 1
    if high == math.inf:
        high = max(SPAN, low + span)
    return replace(bounds, low=low, high=high)


def _draw_multiple(step: float, bounds: _Bounds, rng: random.Random) -> float:
    if isinstance(step, int) and isinstance(bounds.low, int) and isinstance(bounds.high, int):
        first, last = -(-bounds.low // step), bounds.high // step  # exact beyond 2^53
    else:
        first, last = math.ceil(bounds.low / step), math.floor(bounds.high / step)
    edges = (first, first + 1, last, last - 1)
    allowed = [n for n in edges if first <= n <= last and bounds.open_low < n * step < bounds.open_high]
    if first > last or not allowed:
        raise DeadEnd
    n = rng.randint(first, last)
    return (n if bounds.open_low < n * step < bounds.open_high else rng.choice(allowed)) * step


def _draw_real(bounds: _Bounds, rng: random.Random) -> float:
    """Draw a number, of two decimals where the bounds leave room."""
    drawn = rng.uniform(bounds.low, bounds.high)
    for number in (round(drawn, 2), drawn, bounds.low, bounds.high):
        if bounds.allow(number):
            return number if float(number) != number else float(number)
    raise DeadEnd
