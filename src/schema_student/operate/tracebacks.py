"""Describe a failure for a log: its traceback, with the local variables of our own functions, cleaned of secrets.

print(describe_failure(error, secret_hider([])))
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import schema_student
from schema_student.core.cleaning import HIDDEN, one_line
from schema_student.operate.secrets import is_secret_name

PACKAGE = str(Path(schema_student.__file__).parent)
LONGEST = 200  # characters of a variable
READ = 20_000  # characters of which secrets are hidden before the variable is cut
MANY = 20  # items of a collection that is shown


def describe_failure(error: BaseException, hide: Callable[[str], str]) -> str:
    """Describe an exception and what it came of, each frame of our own with its local variables."""
    lines = [hide("".join(traceback.format_exception(error)).rstrip()), "local variables, the innermost function last:"]
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(PACKAGE):
            lines += _describe_frame(frame, line, hide)
    return "\n".join(lines)


def _describe_frame(frame: FrameType, line: int, hide: Callable[[str], str]) -> Iterator[str]:
    place = Path(frame.f_code.co_filename).relative_to(PACKAGE)
    yield f"  {place}:{line} {frame.f_code.co_name}"
    for name, value in frame.f_locals.items():
        yield f"    {name} = {HIDDEN if is_secret_name(name) else _show(value, hide)}"


def _show(value: Any, hide: Callable[[str], str]) -> str:
    """A value in one line; a large collection by its size. Secrets are hidden before it is cut: none is halved."""
    if isinstance(value, list | tuple | set | frozenset | Mapping) and len(value) > MANY:
        return f"<{type(value).__name__} of {len(value)}>"
    try:
        text = repr(value)
    except Exception as error:  # of an object that is half made
        return f"<{type(value).__name__}: no repr, {type(error).__name__}>"
    return one_line(hide(text[:READ]), LONGEST)
