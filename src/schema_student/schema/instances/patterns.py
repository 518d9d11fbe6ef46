"""Draw a text in which a pattern is found.

Python's parse of the pattern is walked, and one text of it drawn. Of lookarounds only lookaheads are met, and those by
a guess: the check decides.
"""

from __future__ import annotations

import random
import re
from re import _parser as regex_parser  # type: ignore[attr-defined]  # the standard library's own reader
from typing import Any

from schema_student.schema.instances.dead_ends import DeadEnd, check_size
from schema_student.schema.instances.words import WORDS
from schema_student.schema.sizes import MAX_CHARACTERS

CATEGORIES = {
    **{"CATEGORY_DIGIT": "0123456789", "CATEGORY_WORD": "abcdefghijklmnopqrstuvwxyz0123456789_", "CATEGORY_SPACE": " "},
    **{"CATEGORY_NOT_DIGIT": "abcxyz-", "CATEGORY_NOT_WORD": " -.", "CATEGORY_NOT_SPACE": "abcxyz019"},
}
PRINTABLE = [chr(code) for code in range(32, 127)]


def draw_from_pattern(pattern: str, rng: random.Random, reach: int = 4) -> str:
    """Draw a text in which the pattern is found; DeadEnd where Python cannot read it (ECMA 262 differs a little).

    What may be repeated is repeated up to `reach` times more than it must be.
    """
    tail = rng.choice(WORDS) if not pattern.endswith("$") and rng.random() < 0.7 else ""
    return _draw_pieces(_parse(pattern), rng, reach) + tail


def draw_with_lookaheads(pattern: str, rng: random.Random, reach: int = 4) -> str:
    """Draw a text, and write over it, somewhere, what each lookahead asks for, as in "^(?=.*[0-9]).{8,}$"."""
    pieces = _parse(pattern)
    text = _draw_pieces(pieces, rng, reach)
    wanted = [_draw_pieces(_without_any(inner), rng, 0) for inner in _lookaheads(pieces)]
    need = sum(map(len, wanted))
    start = rng.randint(0, len(text))
    rng.shuffle(wanted)
    return text[:start] + "".join(wanted) + text[start + need :]


def _parse(pattern: str) -> Any:
    try:
        pieces = regex_parser.parse(_without_unicode_classes(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise DeadEnd from error
    check_size("pattern", pieces.getwidth()[0], MAX_CHARACTERS)
    return pieces


def _lookaheads(pieces: Any) -> list[Any]:
    found = []
    for op, arg in pieces:
        if str(op) == "ASSERT" and arg[0] == 1:
            found.append(arg[1])
        elif str(op) == "SUBPATTERN":
            found += _lookaheads(arg[3])
    return found


def _without_any(pieces: Any) -> list[Any]:
    """The pieces of a lookahead that ask for something, without its ".*"."""
    repeats = ("MAX_REPEAT", "MIN_REPEAT")
    return [(op, arg) for op, arg in pieces if not (str(op) in repeats and str(arg[2][0][0]) == "ANY")]


def _without_unicode_classes(pattern: str) -> str:
    """Replace Unicode classes, which Python does not know, by members of theirs."""
    return re.sub(r"\\p\{L[a-z]?\}", "[A-Za-z]", re.sub(r"\\p\{N[a-z]?\}", "[0-9]", pattern))


def _draw_pieces(pieces: Any, rng: random.Random, reach: int) -> str:
    return "".join(_draw_piece(op, arg, rng, reach) for op, arg in pieces)


def _draw_piece(op: Any, arg: Any, rng: random.Random, reach: int) -> str:
    name = str(op)
    if name == "LITERAL":
        return chr(arg)
    if name == "NOT_LITERAL":
        return rng.choice([c for c in PRINTABLE if c != chr(arg) and c.isalnum()])
    if name == "ANY":
        return rng.choice("abcdefghij")
    if name == "IN":
        return rng.choice(_class_members(arg))
    if name == "BRANCH":
        return _draw_pieces(rng.choice(arg[1]), rng, reach)
    if name == "SUBPATTERN":
        return _draw_pieces(arg[3], rng, reach)
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        low, high, pieces = arg
        return "".join(_draw_pieces(pieces, rng, reach) for _ in range(rng.randint(low, min(int(high), low + reach))))
    if name in ("AT", "ASSERT", "ASSERT_NOT"):
        return ""
    raise DeadEnd


def _class_members(parts: list[Any]) -> list[str]:
    members: list[str] = []
    for op, arg in parts:
        name = str(op)
        if name == "LITERAL":
            members.append(chr(arg))
        elif name == "RANGE":
            members += [chr(code) for code in range(arg[0], min(arg[1], arg[0] + 200) + 1)]
        elif name == "CATEGORY":
            members += CATEGORIES[str(arg)]
    if str(parts[0][0]) == "NEGATE":
        allowed = [c for c in PRINTABLE if c not in members]
        members = [c for c in allowed if c.isalnum()] or allowed
    if not members:
        raise DeadEnd
    return members
