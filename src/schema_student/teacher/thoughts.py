"""Tell a teacher's answer from the thoughts and the prose around it.

Models that reason write drafts before they answer, and not every server takes them out of the answer. What counts is
the last whole JSON value that isn't among thoughts:

    last_json('<think>maybe {"n": 1}? no</think>{"n": 2}')      # '{"n": 2}'
    last_json('<think>maybe {"n": 1}')                          # None: the thoughts have no end
"""

from __future__ import annotations

import re

from schema_student.schema.parsing import MAX_DEPTH, parse_strict

NEAR = 64  # characters before a value that tell whether it is a part of another
TRIES = 8  # closing brackets from which a value is looked for: each costs one pass over the text

_TAGS = "think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad"
_MARK = re.compile(
    # <think> </think>, <thinking>, <seed:think>, [THINK] [/THINK], (Kimi's) U+25C1 think U+25B7
    rf"[<\[\u25c1](?P<close>/?)(?:seed:)?(?:{_TAGS})[>\]\u25b7]"
    # <|begin_of_thought|> <|end_of_thought|>, <|START_THINKING|> <|END_THINKING|>
    r"|<\|(?P<edge>begin|start|end)_(?:of_)?(?:thought|thinking)\|>"
    # gpt-oss's channels, also where marks are lost (analysis ... assistantfinal); Gemma's <|channel>thought <channel|>
    r"|<\|channel\|?>(?P<channel>analysis|commentary|thought|final)|(?P<final>assistantfinal|<channel\|>)",
    re.IGNORECASE,
)
_INSIDE = re.compile(r'(?:[\[{]|"\s{0,9}:|[\]}"]\s{0,9},)\s*\Z')
BRACKET = re.compile(r'[\[\]{}]|"(\\*)')  # of a text that is read from its end


def has_thoughts(text: str) -> bool:
    """Return whether a text has marks of thoughts."""
    return _MARK.search(text) is not None


def last_json(text: str, closing: str = "}]") -> str | None:
    """Find the last whole JSON object or array outside thoughts, None where there is none.

    `closing`: the brackets with which it may end. Linear: a value is read from its end, where quotes cannot be mistaken
    for those of the prose before it.
    """
    end = len(text)
    for _ in range(TRIES):
        last = max(text.rfind(bracket, 0, end) for bracket in closing)
        if last < 0:
            return None
        start = _opening(text, last)
        found = None if start is None else text[start : last + 1]
        if start is None or found is None or parse_strict(found)[1] is not None:
            end = last
        elif _is_thought(text, start, last + 1) or _is_part(text, start):
            end = start
        else:
            return found
    return None


def _opening(text: str, last: int, depth: int = 0) -> int | None:
    """Find the bracket that the one at `last` closes, or, at depth 1, one that is open there; in strings are none."""
    quoted = False
    for match in BRACKET.finditer(text[last::-1]):
        mark = match[0][0]
        if mark == '"':
            quoted = quoted != (len(match[1]) % 2 == 0)  # one behind an odd number of backslashes is a letter
        elif not quoted:
            depth += 1 if mark in "}]" else -1
            if depth == 0:
                return last - match.start()
            if depth > MAX_DEPTH:
                return None
    return None


def _is_thought(text: str, start: int, end: int) -> bool:
    """Whether a value stands between marks of thoughts, of which the first or the last may be missing."""
    before = None
    for before in _MARK.finditer(text, 0, start):  # noqa: B007 - the last one counts
        pass
    after = _MARK.search(text, end)
    return (before is not None and not _closes(before)) or (after is not None and _closes(after))


def _is_part(text: str, start: int) -> bool:
    """Whether a value is a part of one that is cut off: it stands as an item or a property behind an open bracket."""
    stands_inside = _INSIDE.search(text, max(0, start - NEAR), start)
    return stands_inside is not None and _opening(text, start - 1, depth=1) is not None


def _closes(mark: re.Match[str]) -> bool:
    if mark["edge"]:
        return mark["edge"].lower() == "end"
    if mark["channel"]:
        return mark["channel"].lower() == "final"
    return bool(mark["close"] or mark["final"])
