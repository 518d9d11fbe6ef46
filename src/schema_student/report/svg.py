"""Draw charts as SVG: each panel is as wide as a phone and scales up, so that its letters stay readable.

Colors and fonts are classes of the page's style: one drawing for light and dark. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from schema_student.report.charts import Bar, Bars, Lines, Panel, Series, Stacks, pick_ticks, say_ticks

WIDTH = 360  # units of a drawing, about pixels at a width of 390
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 34
HEIGHT = 210
ROW = 17  # of a bar
LETTER = 6.6  # width of a letter


def draw_svg(panel: Panel) -> str:
    """Draw one panel; its title and numbers stand beside it in the page."""
    if isinstance(panel, Lines):
        height, parts = HEIGHT, _draw_lines(panel)
    elif isinstance(panel, Bars):
        height = sum(24 + ROW * len(bars) for _, bars in panel.groups) + 22
        parts = _draw_bars(panel, height)
    else:
        height = 48 * len(panel.rows) + 6
        parts = _draw_stacks(panel)
    label = escape(f"{panel.title}; the numbers follow as a table")
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
    return head + "".join(parts) + "</svg>"


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="{kind}"/>'


# ---------------------------------------------------------------------------------------------------------------------
# Lines


class _Frame:
    """Places of steps and values in the drawing."""

    def __init__(self, panel: Lines) -> None:
        steps, values = _ranges(panel)
        self.steps, self.values = steps, values
        self.x_ticks = [tick for tick in pick_ticks(*steps) if panel.shares or tick == int(tick)]
        self.y_ticks = pick_ticks(*values)

    def x(self, step: float) -> float:
        low, high = self.steps
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        low, high = self.values
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / ((high - low) or 1)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.x(step):.1f} {self.y(value):.1f}" for step, value in points)


def _ranges(panel: Lines) -> tuple[tuple[float, float], tuple[float, float]]:
    steps = [step for series in panel.series for step, _ in series.points]
    values = [value for series in panel.series for _, value in series.points]
    values += [bound for series in panel.series for _, *bounds in series.band for bound in bounds]
    values += [value for value, _ in panel.across] + [0.0] * panel.from_zero
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    bottom = 0.0 if low >= 0 and (panel.from_zero or low < room) else low - room
    return (min(steps, default=0), max(steps, default=1)), (
        bottom,
        min(high + room, 1.02) if panel.percent else high + room,
    )


def _draw_lines(panel: Lines) -> Iterator[str]:
    frame = _Frame(panel)
    for tick, said in zip(frame.y_ticks, say_ticks(frame.y_ticks, panel.percent), strict=True):
        yield _line(LEFT, frame.y(tick), WIDTH - RIGHT, frame.y(tick), "grid")
        yield _text(LEFT - 6, frame.y(tick) + 4, said, "end")
    for tick, said in zip(frame.x_ticks, say_ticks(frame.x_ticks, panel.shares), strict=True):
        yield _text(min(frame.x(tick), WIDTH - RIGHT - 6), HEIGHT - BOTTOM + 15, said, "middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, panel.x, "middle")
    for value, name in panel.across:
        yield _line(LEFT, frame.y(value), WIDTH - RIGHT, frame.y(value), "level")
        yield _text(WIDTH - RIGHT, frame.y(value) - 4, name, "end")
    for series in panel.series:
        yield from _draw_series(frame, series)
    if panel.ring:
        yield f'<circle cx="{frame.x(panel.ring[0]):.1f}" cy="{frame.y(panel.ring[1]):.1f}" r="8" class="ring"/>'


def _draw_series(frame: _Frame, series: Series) -> Iterator[str]:
    if series.band:
        there = [(step, high) for step, _, high in series.band]
        back = [(step, low) for step, low, _ in reversed(series.band)]
        yield f'<path d="{frame.path([*there, *back])}Z" class="band fill-{series.color}"/>'
    if len(series.points) > 1:
        faint = " faint" if series.faint else ""
        yield f'<path d="{frame.path(series.points)}" class="line{faint} line-{series.color}"/>'
    for step, value in series.points if series.dots or len(series.points) == 1 else ():
        yield f'<circle cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}" r="3" class="fill-{series.color}"/>'


# ---------------------------------------------------------------------------------------------------------------------
# Bars

BAR_END = 268  # of a share of 1; its number follows


def _draw_bars(panel: Bars, height: int) -> Iterator[str]:
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield _line(BAR_END * tick, 4, BAR_END * tick, height - 18, "grid")
        anchor = "start" if tick == 0 else "middle"
        yield _text(BAR_END * tick, height - 4, f"{tick:.0%}", anchor)
    y = 0.0
    for name, bars in panel.groups:
        yield _text(0, y + 15, _fit(name, WIDTH), kind="name")
        y += 20
        for bar in bars:
            yield from _draw_bar(bar, y)
            y += ROW
        y += 4


def _draw_bar(bar: Bar, y: float) -> Iterator[str]:
    width = max(BAR_END * bar.share, 0.5)
    yield f'<rect x="0" y="{y:.1f}" width="{width:.1f}" height="{ROW - 4}" class="fill-{bar.color}"/>'
    if bar.low is not None and bar.high is not None:
        middle = y + (ROW - 4) / 2
        yield _line(BAR_END * bar.low, middle, BAR_END * bar.high, middle, "interval")
    end = BAR_END * max(bar.share, bar.high or 0)
    yield _text(end + 5, y + 11, f"{bar.share:.1%}", kind="name")


def _fit(text: str, width: float) -> str:
    most = int(width / LETTER)
    return text if len(text) <= most else f"{text[: most - 3]}..."


# ---------------------------------------------------------------------------------------------------------------------
# Stacks


def _draw_stacks(panel: Stacks) -> Iterator[str]:
    for i, (name, parts) in enumerate(panel.rows):
        y = 48 * i
        yield _text(0, y + 15, _fit(name, WIDTH), kind="name")
        yield from _draw_stack(parts, y + 20)


def _draw_stack(parts: Sequence[Bar], y: float) -> Iterator[str]:
    left = 0.0
    for part in parts:
        width = WIDTH * part.share
        if width:
            yield f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="22" class="part fill-{part.color}"/>'
        if part.share > 0.09:
            yield _text(left + width / 2, y + 15, f"{part.share:.0%}", "middle", f"on-{part.color}")
        left += width
