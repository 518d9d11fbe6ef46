"""Describe plots as data: drawn as PNG (plotting) and as SVG (svg), and written out as tables of their numbers.

Figure("sft", "SFT", (Lines("Loss", "nats a token", (Series("training", "blue", ((0, 1.4), (10, 0.3))),)),))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Okabe and Ito's colors, safe for color-blind eyes: on white, and lighter on a dark page.
PALETTE = {
    "gray": ("#7b8794", "#9aa5b1"),
    "blue": ("#0072b2", "#56b4e9"),
    "vermillion": ("#d55e00", "#ff8c42"),
    "green": ("#009e73", "#2cc79b"),
    "pink": ("#cc79a7", "#e3a3c6"),
    "orange": ("#e69f00", "#f2b632"),
    "sky": ("#56b4e9", "#8fd0ff"),
    "ink": ("#1c2530", "#e6eaee"),
    # What became of answers, worst first.
    "rank0": ("#4b2142", "#6b3a60"),
    "rank1": ("#8a3b6a", "#a4568a"),
    "rank2": ("#c9699a", "#c9699a"),
    "rank3": ("#e8a5b8", "#dc97b4"),
    "rank4": ("#f3d9a4", "#e2c27f"),
    "rank5": ("#1f7a5c", "#2b9372"),
}
STUDENT_COLORS = ("blue", "vermillion", "green", "pink", "orange", "sky")
STEP = "optimizer step"
MOST_ROWS = 24  # of a table of steps; the logs have them all


@dataclass(frozen=True)
class Series:
    """Values over steps; `band` are (step, low, high) around them, `faint` what is noise behind another line."""

    name: str
    color: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Lines:
    """Series over optimizer steps, or over shares that are named.

    `across` are (value, name) of level lines, `ring` the point that was chosen, `x` what is drawn over, `shares`
    whether that is a share.
    """

    title: str
    unit: str
    series: Sequence[Series]
    percent: bool = False
    from_zero: bool = False
    across: Sequence[tuple[float, str]] = ()
    ring: tuple[float, float] | None = None
    x: str = STEP
    shares: bool = False


@dataclass(frozen=True)
class Bar:
    """A share, and its interval where it has one."""

    name: str
    color: str
    share: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bars:
    """Groups of bars: (name, bars)."""

    title: str
    groups: Sequence[tuple[str, Sequence[Bar]]]


@dataclass(frozen=True)
class Stacks:
    """Rows of shares that make up a whole: (name, parts)."""

    title: str
    rows: Sequence[tuple[str, Sequence[Bar]]]


Panel = Lines | Bars | Stacks


@dataclass(frozen=True)
class Figure:
    """Panels under one caption; `name` is that of its PNG, `legend` says what colors mean: (name, color)."""

    name: str
    caption: str
    panels: Sequence[Panel]
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Table:
    """The numbers of a panel."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def list_numbers(panel: Panel) -> Table:
    """List the numbers of a panel; of many steps an even choice with the last."""
    if isinstance(panel, Lines):
        return _list_steps(panel)
    if isinstance(panel, Stacks):
        names = [bar.name for bar in panel.rows[0][1]] if panel.rows else []
        return Table(
            panel.title, ["", *names], [[name, *(f"{bar.share:.1%}" for bar in bars)] for name, bars in panel.rows]
        )
    names = list(dict.fromkeys(bar.name for _, bars in panel.groups for bar in bars))
    shown = [{bar.name: _say_bar(bar) for bar in bars} for _, bars in panel.groups]
    rows = [
        [name, *(cells.get(each, "-") for each in names)] for (name, _), cells in zip(panel.groups, shown, strict=True)
    ]
    return Table(panel.title, ["", *names], rows)


def _say_bar(bar: Bar) -> str:
    interval = f" ({100 * bar.low:.1f} to {100 * bar.high:.1f})" if bar.low is not None and bar.high is not None else ""
    return f"{bar.share:.1%}{interval}"


def _list_steps(panel: Lines) -> Table:
    columns = [dict(series.points) for series in panel.series]
    steps = sorted({step for column in columns for step in column})
    every = math.ceil(len(steps) / MOST_ROWS)
    kept = {*steps[::every], *steps[-1:], *(_few_steps(panel.series))} if steps else set()
    write = (lambda value: f"{value:.1%}") if panel.percent else (lambda value: f"{value:.4g}")
    say_x = "{:.1%}" if panel.shares else "{:g}"
    rows = [
        [say_x.format(step), *(write(column[step]) if step in column else "" for column in columns)]
        for step in sorted(kept)
    ]
    title = f"{panel.title}, {panel.unit}" if panel.unit else panel.title
    return Table(title, ["step" if panel.x == STEP else panel.x, *(s.name for s in panel.series)], rows)


def _few_steps(series: Iterable[Series]) -> set[float]:
    """The steps of series that have few: each of them is shown."""
    return {step for each in series if len(each.points) <= MOST_ROWS for step, _ in each.points}


def smooth(points: Sequence[tuple[float, float]], width: int = 0) -> list[tuple[float, float]]:
    """Compute the running mean over a window of steps around each: a twentieth of all, at least five."""
    width = width or max(5, len(points) // 20)
    found = []
    for i, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, i - width // 2) : i + width // 2 + 1]]
        found.append((step, sum(near) / len(near)))
    return found


def pick_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Pick round numbers over a range, at most `most` + 1 of them.

    >>> pick_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= span / most * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def say_ticks(ticks: Sequence[float], percent: bool = False) -> list[str]:
    """Write ticks with as many decimals as tell them apart.

    >>> say_ticks([0.89, 0.895], percent=True)
    ['89.0%', '89.5%']
    """
    values = [100 * tick if percent else tick for tick in ticks]
    for digits in range(7):
        said = [f"{value:,.{digits}f}" for value in values]
        if all(
            math.isclose(float(text.replace(",", "")), value, abs_tol=1e-9)
            for text, value in zip(said, values, strict=True)
        ):
            break
    return [f"{text}%" if percent else text for text in said]
