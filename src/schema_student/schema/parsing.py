"""Parse JSON strictly by RFC 8259."""

from __future__ import annotations

import json
import sys
from collections import Counter
from decimal import Decimal
from typing import Any

MAX_DEPTH = 200  # jsonschema-rs overflows the stack, and so ends the process, on instances nested 50,000 deep.
MAX_DIGITS = 400  # of a whole number that is written with a point or an exponent


def parse_strict(text: str) -> tuple[Any, str | None]:
    """Parse JSON strictly by RFC 8259: (value, None), or (None, why the text is not JSON).

    Refused: NaN and Infinity, numbers beyond a double, duplicate keys, lone surrogates, text after the value, and
    nesting beyond MAX_DEPTH.

    >>> parse_strict('{"a": 1, "a": 2}')
    (None, 'duplicate key "a"')
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        return None, f"nested deeper than {MAX_DEPTH}"
    except ValueError as error:
        return None, "empty" if not text.strip() else _describe(error)
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        return None, f"nested deeper than {MAX_DEPTH}"
    if not _is_unicode(text) or ("\\u" in text and not _is_unicode(json.dumps(value, ensure_ascii=False))):
        return None, "lone surrogate"
    return value, None


def _describe(error: ValueError) -> str:
    """Say why JSON was not read; Python's own words for a number of too many digits speak of Python."""
    most = sys.get_int_max_str_digits()
    return f"a number of more than {most} digits" if "max_str_digits" in str(error) else str(error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"duplicate key {json.dumps(max(counts, key=counts.__getitem__))}")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float | int:
    """Read a number with a point or an exponent: as a double, but as the whole number that it is where that is another.

    "9007199254740993.0" is such a one; 1e23 is what a double that is near it is written as.
    """
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number out of range: {digits[:40]}")
    if abs(number) < 2**53 or len(digits) > MAX_DIGITS:
        return number
    exact = Decimal(digits)
    return int(exact) if exact == exact.to_integral_value() and exact != Decimal(repr(number)) else number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def _is_deep(value: Any) -> bool:
    """Whether a value is nested deeper than MAX_DEPTH; its lists and objects are looked at once, level by level."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        parts = (node.values() if isinstance(node, dict) else node for node in level)
        level = [part for some in parts for part in some if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
