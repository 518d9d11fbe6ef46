"""Render a template: in HTML everything is escaped, in Markdown what would be read as markup is."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.markdown import open_markdown, shorten
from schema_student.core.places import hide_places
from schema_student.core.templates import open_templates
from schema_student.data.likeness import say_far


def render(template: str, facts: Row, pictures: dict[str, bytes]) -> str:
    """Render a template with the facts; in HTML everything is escaped, in Markdown what would be read as markup is."""
    is_html, folder = ".html" in template, Path(__file__).parent / "templates"
    environment = open_templates(folder, True, finalize=_finalize) if is_html else open_markdown(folder)
    environment.filters.update(percent=percent, interval=interval, shorten=shorten, span=span)
    environment.filters["say_far"] = say_far
    environment.filters["capital"] = capital
    environment.filters["chance"] = chance
    environment.filters["number"] = lambda value: "-" if value is None else f"{value:.3g}"
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    images = {name: f"data:image/png;base64,{base64.b64encode(picture).decode()}" for name, picture in pictures.items()}
    files = {name: name for name in pictures}
    return environment.get_template(template).render(**facts, images=images if is_html else files)


def _finalize(value: Any) -> Any:
    """What is written into a page of HTML, which jinja2 escapes after this."""
    return hide_places(value) if isinstance(value, str) and not value.startswith("data:image/") else value


def percent(rate: float | None) -> str:
    """Write a rate: 91.3%, or - where it is not known."""
    return "-" if rate is None else f"{rate:.1%}"


def chance(p: float) -> str:
    """Write a p value: 0.031, < 0.001."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def interval(found: Row) -> str:
    """Write the bounds of a rate in percent: 88.1 to 94.0."""
    return "" if found["rate"] is None else f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"


def span(seconds: float | None) -> str:
    """Write a duration for people: 41 s, 3 min 05 s."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def capital(text: str) -> str:
    """Begin a text with a capital."""
    return text[:1].upper() + text[1:]
