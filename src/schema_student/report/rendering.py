"""Render a template: in HTML everything is escaped, in Markdown what would be read as markup is."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from schema_student.core.jsonl import Row
from schema_student.core.markdown import open_markdown, shorten, show_invisible
from schema_student.core.places import hide_places
from schema_student.core.templates import open_templates
from schema_student.data.likeness import say_far
from schema_student.report.charts import PALETTE, list_numbers
from schema_student.report.figures import capital, say
from schema_student.report.svg import draw_svg
from schema_student.report.trust import say_trust

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, facts: Row) -> str:
    """Render a template with the facts; in HTML everything is escaped, in Markdown what would be read as markup is."""
    is_html = ".html" in template
    texts = {"style": _read("page.css"), "script": _read("page.js")} if is_html else {}
    hashes = {name: _hash_source(text) for name, text in texts.items()}
    return (
        _open(is_html)
        .get_template(template)
        .render(**facts, **{name: Markup(text) for name, text in texts.items()}, hashes=hashes, palette=PALETTE)
    )


@cache
def _open(is_html: bool) -> Any:
    """Open the templates, which are compiled once for all pages of this process."""
    environment = open_templates(TEMPLATES, True, finalize=_finalize) if is_html else open_markdown(TEMPLATES)
    environment.filters.update(percent=percent, interval=interval, shorten=shorten, span=span, points=points)
    environment.filters.update(
        say=say, say_far=say_far, capital=capital, chance=chance, embed=embed, numbers=list_numbers
    )
    environment.filters["number"] = lambda value: "-" if value is None else f"{value:.3g}"
    environment.filters["say_trust"] = say_trust
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["svg"] = lambda panel: Markup(draw_svg(panel))
    return environment


def _read(name: str) -> str:
    """A part of the page; in its style the palette stands in place of the line that asks for it."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    text = text.replace("/* palette */", _write_palette(0)).replace("/* dark palette */", _write_palette(1))
    return text.replace("/* classes */", _write_classes())


def _write_palette(side: int) -> str:
    return " ".join(f"--{name}: {colors[side]};" for name, colors in PALETTE.items())


def _write_classes() -> str:
    """Write the classes of drawings: what is filled with, and drawn in, each color."""
    names = [f".fill-{name} {{ fill: var(--{name}); background: var(--{name}); }}" for name in PALETTE]
    return "\n".join([*names, *(f".line-{name} {{ stroke: var(--{name}); }}" for name in PALETTE)])


def _hash_source(text: str) -> str:
    """The source expression of a Content-Security-Policy that allows this text alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embed(value: Any) -> Markup:
    """Write JSON for a script element that its text cannot leave: no <, > or & stands in it.

    >>> print(embed("</script>"))
    "\\u003c/script\\u003e"
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text.encode("utf-8", "backslashreplace").decode()  # half a pair of surrogates is no UTF-8
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _finalize(value: Any) -> Any:
    """What is written into a page of HTML, which jinja2 escapes after this; what a macro or a filter made is whole."""
    return show_invisible(hide_places(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def percent(rate: float | None) -> str:
    """Write a rate: 91.3%, or - where it is not known."""
    return "-" if rate is None else f"{rate:.1%}"


def chance(p: float) -> str:
    """Write a p value: 0.031, < 0.001."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def interval(found: Row) -> str:
    """Write the bounds of a rate in percent: 88.1 to 94.0."""
    return "" if found["rate"] is None else f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"


def points(difference: Row) -> str:
    """Write a difference of two rates in percentage points: +4.0 points (95% interval 0.9 to 7.1)."""
    if difference["difference"] is None:
        return "-"
    bounds = f"{100 * difference['low']:+.1f} to {100 * difference['high']:+.1f}"
    return f"{100 * difference['difference']:+.1f} points (95% interval {bounds})"


def span(seconds: float | None) -> str:
    """Write a duration for people: 41 s, 3 min 05 s."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
