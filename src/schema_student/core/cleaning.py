"""Clean the words of others before a person sees them: nothing that steers a terminal, no secret, no end of length.

one_line("bad key\x1b[31m")                                # "bad key [31m"
hide_userinfo("http://ann:secret@gpu:11434")              # "http://***@gpu:11434"
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

HIDDEN = "***"
LINE = 300  # characters of a message that are another's words

_USERINFO = re.compile(r"://[^\s/]*@")
_NO_PORT = re.compile(r"(://[^:/\[]+):(?!\d*(?:/|$)).*", re.DOTALL)


def one_line(text: str, limit: int = LINE) -> str:
    """Shorten words to one line without control characters, marks of direction, or what no terminal can show."""
    line = " ".join(_without_controls(text[: 4 * limit], keep="").split())
    return line if len(line) <= limit else line[: limit - 4] + " ..."


def for_terminal(text: str) -> str:
    """Leave a text's lines, but nothing in them that steers a terminal, and no password of an address."""
    return hide_userinfo(_without_controls(text, keep="\n\t"))


def hide_userinfo(text: str) -> str:
    """Hide user and password of every address in a text."""
    return _USERINFO.sub(f"://{HIDDEN}@", text)


def hide_address(address: str) -> str:
    """Hide user and password of one address, which may lack its scheme, and whose password may hold any character."""
    scheme, mark, rest = address.partition("://") if "://" in address else ("", "", address)
    if "@" in rest:
        return f"{scheme}{mark}{HIDDEN}@{rest.rpartition('@')[2]}"
    return _NO_PORT.sub(rf"\1:{HIDDEN}", address)  # the half of one that a comma in a password has torn


def hide_secrets(text: str, secrets: Sequence[str]) -> str:
    """Hide secrets wherever they stand in a text, in letters of any case."""
    if not secrets:
        return text
    longest_first = sorted(secrets, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), HIDDEN, text, flags=re.IGNORECASE)


def _without_controls(text: str, keep: str) -> str:
    return "".join(c if c.isprintable() or c in keep else " " for c in text)


def escape_unprintable(text: str) -> str:
    """Escape in JSON's way what no person sees or what steers a terminal: the JSON text says the same as before.

    >>> escape_unprintable('"a\u202eb"')
    '"a\\\\u202eb"'
    """
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
