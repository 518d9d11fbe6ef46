"""Draw with matplotlib: the style, a grid of axes as PNG, logged values over steps, names beside their lines."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from schema_student.core.jsonl import Row

COLORS = {"base": "#8b95a1", "sft": "#0072b2", "dpo": "#d55e00"}
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
INK, QUIET, ACCENT = "#1c2530", "#68737f", "#009e73"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,  # a name with two $ is a name, not a formula
    "text.color": INK,
    "axes.edgecolor": "#c3cad2",
    "axes.labelcolor": QUIET,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eaeef2",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "lines.linewidth": 1.8,
    "axes.xmargin": 0.012,
    "figure.constrained_layout.use": True,
}


def draw_grid(
    rows: int, columns: int, width: float, height: float, plot: Callable[[Any], None], **options: Any
) -> bytes:
    """Draw a grid of axes that `plot` fills; returns PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)
        plot(axes)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
        pyplot.close(figure)
    return out.getvalue()


def percent_axis(axis: Any) -> None:
    """Write an axis's shares as percentages."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def points(rows: Sequence[Row], key: str) -> tuple[list[Any], list[Any]]:
    """Find (steps, values) of the rows that have a value."""
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None and "step" in row]
    return [step for step, _ in found], [value for _, value in found]


def plot_line(axes: Any, rows: Sequence[Row], key: str, color: str, **options: Any) -> float | None:
    """Draw a logged value over steps; returns the last value, where its name belongs."""
    steps, values = points(rows, key)
    if not steps:
        return None
    axes.plot(steps, values, color=color, solid_capstyle="round", **options)
    return values[-1]


def name_ends(axes: Any, names: Sequence[tuple[str, float | None, str]]) -> None:
    """Write (name, value, color) to the right of the axes at the height of the value, never over one another."""
    found = [(name, value, color) for name, value, color in names if value is not None]
    axes.get_ylim()  # the limits are settled only when they are asked for
    heights = [axes.transAxes.inverted().transform(axes.transData.transform((0, value)))[1] for _, value, _ in found]
    gap = 11.5 / (axes.get_window_extent().height * 72 / axes.figure.dpi)  # a line of text, as a share of the height
    below = -1.0
    for height, (name, _, color) in sorted(zip(heights, found, strict=True), key=lambda item: item[0]):
        below = max(height, below + gap)
        axes.annotate(
            name, (1, below), xycoords="axes fraction", xytext=(5, 0), textcoords="offset points", **_small(color)
        )


def _small(color: str) -> Row:
    return {"color": color, "fontsize": 9, "va": "center", "annotation_clip": False}


def set_titles(axes: Any, title: str, ylabel: str = "", xlabel: str = "") -> None:
    """Set what axes are called."""
    axes.set_title(title)
    axes.set_ylabel(ylabel)
    axes.set_xlabel(xlabel)
