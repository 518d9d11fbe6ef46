"""Render the templates of pages and cards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def open_templates(folder: Path, autoescape: bool = False, finalize: Callable[[Any], Any] | None = None) -> Any:
    """Open a folder of jinja2 templates: an unknown name is an error, and a line of markup leaves no empty line."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
