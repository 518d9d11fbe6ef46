"""Draw charts with matplotlib as PNG: the files that lie beside the page and stand in report.md."""

from __future__ import annotations

import io
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.report.charts import PALETTE, Bars, Figure, Lines, Panel, Series, Stacks, say_ticks

INK, QUIET = "#1c2530", "#68737f"
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
COLUMNS = 3


def draw_png(figure: Figure) -> bytes:
    """Draw a figure: its panels side by side, its legend above them; returns PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(COLUMNS, len(figure.panels))
    rows = -(-len(figure.panels) // columns)
    with pyplot.rc_context(STYLE):
        height = 0.7 + rows * max(map(_height, figure.panels))
        drawn, axes = pyplot.subplots(rows, columns, figsize=(max(11, 4.2 * columns), height), squeeze=False)
        places = list(axes.flat)
        for place, panel in zip(places, figure.panels, strict=False):
            _draw_panel(place, panel)
        for place in places[len(figure.panels) :]:
            place.set_visible(False)
        _draw_legend(drawn, figure)
        out = io.BytesIO()
        drawn.savefig(out, format="png", dpi=120, metadata={"Software": None})
        pyplot.close(drawn)
    return out.getvalue()


def _height(panel: Panel) -> float:
    """Inches that a panel needs."""
    if isinstance(panel, Lines):
        return 3.2
    if isinstance(panel, Stacks):
        return 1.2 + 0.5 * len(panel.rows)
    return 1.0 + sum(0.16 + 0.2 * len(bars) for _, bars in panel.groups)


def _draw_legend(drawn: Any, figure: Figure) -> None:
    from matplotlib.patches import Patch

    if figure.legend:
        handles = [Patch(color=PALETTE[color][0], label=name) for name, color in figure.legend]
        drawn.legend(handles=handles, loc="outside upper left", ncols=min(4, len(handles)), frameon=False, fontsize=9)


def _draw_panel(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title)
    if isinstance(panel, Lines):
        _draw_lines(axes, panel)
    elif isinstance(panel, Bars):
        _draw_bars(axes, panel)
    else:
        _draw_stacks(axes, panel)


def _draw_lines(axes: Any, panel: Lines) -> None:
    for series in panel.series:
        _draw_series(axes, series)
    for value, name in panel.across:
        axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=name)
    if panel.ring:
        axes.plot(*[[each] for each in panel.ring], "o", markersize=11, fillstyle="none", color=INK, label="chosen")
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    ticks = [tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, say_ticks(ticks, panel.percent))
    axes.set_ylabel(panel.unit)
    if panel.shares:
        axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel(panel.x)
    axes.legend(frameon=False, fontsize=9)


def _draw_series(axes: Any, series: Series) -> None:
    color = PALETTE[series.color][0]
    if series.band:
        steps, low, high = zip(*series.band, strict=True)
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    if series.points:
        steps, values = zip(*series.points, strict=True)
        style: Row = {"alpha": 0.3, "linewidth": 0.9} if series.faint else {}
        axes.plot(
            steps, values, color=color, marker="o" if series.dots else None, markersize=4, label=series.name, **style
        )


def _draw_bars(axes: Any, panel: Bars) -> None:
    y, places = 0.0, []
    for _, bars in panel.groups:
        places.append(y + (len(bars) - 1) / 2)
        for bar in bars:
            axes.barh(y, bar.share, height=0.8, color=PALETTE[bar.color][0])
            if bar.low is not None:
                axes.plot([bar.low, bar.high], [y, y], color=INK, linewidth=1.1, solid_capstyle="butt")
            axes.text(max(bar.high or 0, bar.share) + 0.015, y, f"{bar.share:.1%}", va="center", fontsize=8)
            y += 1
        y += 0.8
    axes.set_yticks(places, [name for name, _ in panel.groups], color=INK)
    _frame_shares(axes, 1.16)


def _draw_stacks(axes: Any, panel: Stacks) -> None:
    for y, (_, parts) in enumerate(panel.rows):
        left = 0.0
        for part in parts:
            axes.barh(
                y, part.share, left=left, height=0.62, color=PALETTE[part.color][0], edgecolor="white", linewidth=0.8
            )
            if part.share > 0.035:
                ink = "white" if part.color in ("rank0", "rank1", "rank5") else INK
                axes.text(
                    left + part.share / 2, y, f"{part.share:.0%}", ha="center", va="center", fontsize=9, color=ink
                )
            left += part.share
    axes.set_yticks(range(len(panel.rows)), [name for name, _ in panel.rows], color=INK)
    _frame_shares(axes, 1.0)


def _frame_shares(axes: Any, right: float) -> None:
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, right)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.grid(axis="y", visible=False)
