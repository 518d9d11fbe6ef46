"""Write a conversation as lines of styled pieces, in which nothing that a model wrote steers a terminal.

A line is a list of (style, text). The styles: key, string, number, word (of JSON), good, bad, dim; "" is plain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from schema_student.core.cleaning import escape_unprintable, for_terminal
from schema_student.schema.violations import Violation
from schema_student.student.ask import Answer

Line = list[tuple[str, str]]

TOKEN = re.compile(r'(?P<key>"(?:[^"\\]|\\.)*"(?=:))|(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d[\d.eE+-]*)|'
                   r"(?P<word>true|false|null)")  # fmt: skip


def say(text: str, style: str = "") -> list[Line]:
    """Write words as lines, a control character as a space."""
    return [[(style, line)] for line in for_terminal(text).split("\n")]


def write_json(value: Any) -> list[Line]:
    """Write a JSON value, indented.

    >>> write_json({"n": 1})
    [[('', '{')], [('', '  '), ('key', '"n"'), ('', ': '), ('number', '1')], [('', '}')]]
    """
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return [_highlight(escape_unprintable(line)) for line in text.split("\n")]


def _highlight(text: str) -> Line:
    line: Line = []
    end = 0
    for token in TOKEN.finditer(text):
        line += [("", text[end : token.start()]), (str(token.lastgroup), token[0])]
        end = token.end()
    return [piece for piece in [*line, ("", text[end:])] if piece[1]]


def write_answer(answer: Answer) -> list[Line]:
    """Write an answer, and the verdict on it beneath."""
    shown = write_json(answer.value) if answer.value is not None else say(answer.text) if answer.text else []
    return [*shown, *_write_verdict(answer)]


def _write_verdict(answer: Answer) -> list[Line]:
    spent = f"{answer.tokens} tokens, {answer.seconds:.2f} s" if answer.tokens else ""
    changed = f", {answer.mask_changes} of them changed" if answer.mask_changes else ""
    first: Line = [("good", "valid") if answer.valid else ("bad", "not valid"), ("dim", f"  {spent}{changed}".rstrip())]
    problem = say(f"  {answer.problem}", "bad") if answer.problem else []
    return [first, *problem, *write_violations(answer.violations)]


def write_violations(violations: Sequence[Violation]) -> list[Line]:
    """Write what is wrong where, a line each."""
    return [line for each in violations for line in say(f"  {each.path or '/'}: {each.message}", "bad")]


def plain(line: Line) -> str:
    """Write a line without its styles."""
    return "".join(text for _, text in line)


def side_by_side(left: Sequence[Line], right: Sequence[Line], width: int) -> list[Line]:
    """Write two texts beside each other in `width` columns, a line that is too long cut; below each other in fewer."""
    room = (width - 3) // 2
    if room < 20:
        return [*left, [], *right]
    empty: Line = []
    rows = zip_longest(left, right, fillvalue=empty)
    return [[*_fit(one, room), ("dim", " | "), *_cut(other, room)] for one, other in rows]


def _fit(line: Line, room: int) -> Line:
    cut = _cut(line, room)
    return [*cut, ("", " " * (room - len(plain(cut))))]


def _cut(line: Line, room: int) -> Line:
    """A line's first columns; dots where something is left out."""
    if len(plain(line)) <= room:
        return list(line)
    found: Line = []
    for style, text in line:
        found.append((style, text[: room - 3 - len(plain(found))]))
    return [*found, ("dim", "...")]
