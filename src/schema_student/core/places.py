"""Write paths so that others may read them: without the folders of this machine, and the names of its people."""

from __future__ import annotations

from pathlib import Path

from schema_student.core.resources import RESOURCES


def relative_place(path: str | Path) -> str:
    """Write a path relative to the current folder or to the checkout, else with ~ for the home folder, else whole.

    >>> relative_place(Path.cwd() / "outputs")
    'outputs'
    """
    place = Path(path).expanduser()
    if not place.is_absolute():
        return str(path)
    for folder, mark in ((Path.cwd(), ""), (RESOURCES, ""), (Path.home(), "~")):
        if place.is_relative_to(folder) and folder != Path(folder.anchor):
            return str(mark / place.relative_to(folder))
    return str(place)


def shown_place(path: str | Path) -> str:
    """Write a path for a page or a card: as relative_place does, else its last part alone."""
    place = relative_place(path)
    return Path(place).name if Path(place).is_absolute() else place


def hide_places(text: str) -> str:
    """Take the current folder, the checkout's and the home folder off every path in a text."""
    for folder, instead in ((Path.cwd(), ""), (RESOURCES, ""), (Path.home(), "~/")):
        if folder != Path(folder.anchor):
            text = text.replace(f"{folder}/", instead)
    return text
