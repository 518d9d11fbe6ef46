"""Write text of people and models into Markdown: it is read as text, never as markup.

environment = open_markdown(folder)      # every expression of its templates is inert unless it is Markdown already
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from schema_student.core.places import hide_places
from schema_student.core.templates import open_templates

LONGEST = 1500  # characters of one answer that are shown
MARKS = re.compile(r"[\\`*|\[\]<>&#~$@]|(?<![^\W_])_|_(?![^\W_])|(?<=:)//|(?<=www)\.")  # an _ inside a word is none
AT_START = re.compile(r"^(\s*)([-+=]|\d+[.)])(?=\s)")  # of a line they begin a list


class Markdown(str):
    """Text that is Markdown already: what else is written into a template is made inert first."""

    __slots__ = ()


def open_markdown(folder: Path) -> Any:
    """Open a folder of templates of Markdown: what is written into one is inert text, but for Markdown and numbers."""
    environment = open_templates(folder, finalize=_finalize)
    environment.filters.update(cell=cell, block=block, code=code)
    return environment


def _finalize(value: Any) -> Any:
    return (
        inert(show_invisible(hide_places(value)))
        if isinstance(value, str) and not isinstance(value, Markdown)
        else value
    )


def inert(text: str) -> Markdown:
    """Escape what Markdown, or the hubs that show it, would read as markup, a link, a mention or a formula."""
    line = re.sub(r"\s*[\r\n]+\s*", " ", text)
    escaped = MARKS.sub(lambda found: "".join(f"\\{mark}" for mark in found[0]), line)
    return Markdown(AT_START.sub(lambda found: f"{found[1]}{found[2][:-1]}\\{found[2][-1]}", escaped))


def show_invisible(text: str) -> str:
    """Write characters that are not seen, and halves of surrogate pairs, as their escapes; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cut a model's text where it is too long to be read, and show invisible characters."""
    shown = show_invisible(str(text))
    return shown if len(shown) <= longest else f"{shown[:longest]} ... ({len(shown) - longest} more characters)"


def cell(text: Any) -> Markdown:
    """Write text for a cell or line of Markdown."""
    return inert(" ".join(shorten(hide_places(str(text))).split()))


def code(text: Any) -> Markdown:
    """Write text as a span of code that it cannot leave, in a table neither."""
    shown = " ".join(shorten(str(text)).split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return Markdown(f"{fence}{shown}{fence}" if len(fence) == 1 else f"{fence} {shown} {fence}")


def block(text: Any) -> Markdown:
    """Write a fenced block of Markdown that its text cannot close."""
    shown = shorten(str(text))
    fence = "```"
    while fence in shown:
        fence += "`"
    return Markdown(f"{fence}\n{shown}\n{fence}")
