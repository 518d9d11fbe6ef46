"""Draw the plots of a report: rows of the artifacts -> PNG bytes, one function a figure; None without data.

One color a student throughout (Okabe and Ito's palette, safe for color-blind eyes), labels beside what they name.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
COLORS = {"base": "#8b95a1", "sft": "#0072b2", "dpo": "#d55e00"}
RANK_COLORS = ("#4b2142", "#8a3b6a", "#c9699a", "#e8a5b8", "#f3d9a4", "#2e8b6f")
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
INK, QUIET, ACCENT = "#1c2530", "#68737f", "#009e73"
RATES = {
    "schema_valid_rate": "valid",
    "semantic_pass_rate": "valid and as asked",
    "exact_match_rate": "exactly the target",
    "wrong_but_valid_rate": "valid but wrong",
}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
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


def _draw(rows: int, columns: int, width: float, height: float, plot: Callable[[Any], None], **options: Any) -> bytes:
    """A grid of axes, filled by `plot`, as PNG."""
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


def _percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _points(rows: Sequence[Row], key: str) -> tuple[list[Any], list[Any]]:
    """(steps, values) of the rows that have a value."""
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None and "step" in row]
    return [step for step, _ in found], [value for _, value in found]


def _line(axes: Any, rows: Sequence[Row], key: str, color: str, **options: Any) -> float | None:
    """Draw a logged value over steps; returns the last value, where its name belongs."""
    steps, values = _points(rows, key)
    if not steps:
        return None
    axes.plot(steps, values, color=color, solid_capstyle="round", **options)
    return values[-1]


def _name_ends(axes: Any, names: Sequence[tuple[str, float | None, str]]) -> None:
    """Write (name, value, color) to the right of the axes at the height of the value, never over one another."""
    found = [(name, value, color) for name, value, color in names if value is not None]
    axes.get_ylim()  # the limits are settled only when they are asked for
    points = [axes.transAxes.inverted().transform(axes.transData.transform((0, value)))[1] for _, value, _ in found]
    gap = 11.5 / (axes.get_window_extent().height * 72 / axes.figure.dpi)  # a line of text, as a share of the height
    below = -1.0
    for height, (name, _, color) in sorted(zip(points, found, strict=True), key=lambda item: item[0]):
        below = max(height, below + gap)
        axes.annotate(
            name, (1, below), xycoords="axes fraction", xytext=(5, 0), textcoords="offset points", **_small(color)
        )


def _small(color: str) -> Row:
    return {"color": color, "fontsize": 9, "va": "center", "annotation_clip": False}


def _frame(axes: Any, title: str, ylabel: str = "", xlabel: str = "") -> None:
    axes.set_title(title)
    axes.set_ylabel(ylabel)
    axes.set_xlabel(xlabel)


# ---------------------------------------------------------------------------------------------------------------------
# Evaluations


def draw_rates(students: Sequence[Row], splits: Sequence[str]) -> bytes | None:
    """Draw each rate of each student with its 95% interval, a panel a split."""
    if not students or not splits:
        return None
    thick = 0.8 / len(students)

    def plot(grid: Any) -> None:
        for axes, split in zip(grid[0], splits, strict=True):
            for i, student in enumerate(students):
                for row, key in enumerate(RATES):
                    rate = student["summary"]["splits"].get(split, {}).get(key, {})
                    if rate.get("rate") is not None:
                        _bar(axes, row + (i - (len(students) - 1) / 2) * thick, rate, thick, student)
            axes.set_yticks(range(len(RATES)), list(RATES.values()), color=INK)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(RATES) - 0.5, -0.5)
            axes.set_xlim(0, 1.16)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
            axes.grid(axis="y", visible=False)
            _percent(axes.xaxis)
            totals = {student["summary"]["splits"].get(split, {}).get("total", 0) for student in students}
            _frame(axes, split.replace("_", " "), xlabel=f"share of {max(totals)} prompts, with 95% interval")

    def legend(grid: Any) -> None:
        plot(grid)
        from matplotlib.patches import Patch

        handles = [Patch(color=student["color"], label=student["label"]) for student in students]
        grid[0][0].figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)

    height = 1.6 + len(RATES) * (0.35 + 0.26 * len(students))
    return _draw(1, len(splits), 11, height, legend, sharey=True)


def _bar(axes: Any, y: float, rate: Row, thick: float, student: Row) -> None:
    axes.barh(y, rate["rate"], height=thick * 0.86, color=student["color"])
    axes.plot([rate["low"], rate["high"]], [y, y], color=INK, linewidth=1.1, solid_capstyle="butt")
    text = f"{rate['rate']:.1%}"
    axes.text(max(rate["high"], rate["rate"]) + 0.015, y, text, va="center", fontsize=8.5, color=INK)


def draw_outcomes(students: Sequence[Row], names: Sequence[str]) -> bytes | None:
    """Draw what became of the prompts, a bar a student: the ranks, worst first."""
    if not students:
        return None

    def plot(grid: Any) -> None:
        axes = grid[0][0]
        for y, student in enumerate(students):
            left, total = 0.0, max(1, len(student["rows"]))
            for rank, color in enumerate(RANK_COLORS):
                share = sum(row.rank == rank for row in student["rows"]) / total
                axes.barh(y, share, left=left, height=0.62, color=color, edgecolor="white", linewidth=0.8)
                if share > 0.035:
                    ink = "white" if rank in (0, 1, 5) else INK
                    axes.text(left + share / 2, y, f"{share:.0%}", ha="center", va="center", fontsize=9, color=ink)
                left += share
        axes.set_yticks(range(len(students)), [student["label"] for student in students], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(visible=False)
        _percent(axes.xaxis)
        axes.set_xlabel("share of all test prompts")
        from matplotlib.patches import Patch

        handles = [Patch(color=color, label=name) for color, name in zip(RANK_COLORS, names, strict=True)]
        axes.figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)

    return _draw(1, 1, 11, 1.7 + 0.55 * len(students), plot)


# ---------------------------------------------------------------------------------------------------------------------
# Data

PANELS = {  # of a description's balance, the most telling first -> title
    "operators": "operators",
    "field types": "types of fields asked for",
    "value types": "types of values",
    "words": "words of a request",
    "conditions": "conditions a request",
    "kinds": "kinds of request",
    "properties given": "properties given",
    "languages": "languages",
    "properties of the schema": "properties of a schema",
    "schema depth": "levels of a schema",
}
SHOWN_PANELS = 6


def draw_balance(balance: Row) -> bytes | None:
    """Draw what requests are made of, in shares of training and of tests: one panel a question, from describe()."""
    shown = [name for name in PANELS if name in balance][:SHOWN_PANELS]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    sides = {"training": COLORS["sft"], "tests": COLORS["dpo"]}

    def plot(grid: Any) -> None:
        from matplotlib.patches import Patch

        places = [axes for line in grid for axes in line]
        for axes, name in zip(places, shown, strict=False):
            cases = balance[name]
            for i, (side, color) in enumerate(sides.items()):
                total = sum(counts[side] for counts in cases.values()) or 1
                heights = [y + (i - 0.5) * 0.4 for y in range(len(cases))]
                axes.barh(heights, [counts[side] / total for counts in cases.values()], height=0.36, color=color)
            axes.set_yticks(range(len(cases)), [case.replace("_", " ") for case in cases], color=INK, fontsize=9)
            axes.tick_params(axis="y", length=0)
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            _percent(axes.xaxis)
            _frame(axes, PANELS[name])
        for axes in places[len(shown) :]:
            axes.set_visible(False)
        handles = [Patch(color=color, label=side) for side, color in sides.items()]
        grid[0][0].figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)

    longest = max(len(balance[name]) for name in shown)
    return _draw(rows, columns, 11, 0.7 + rows * (1.0 + 0.22 * longest), plot)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def draw_sft(metrics: Sequence[Row]) -> bytes | None:
    """Draw the losses of training and validation; the learning rate below."""
    if not any("loss" in row for row in metrics):
        return None

    def plot(grid: Any) -> None:
        (loss,), (rate,) = grid
        training = _line(loss, metrics, "loss", COLORS["sft"], alpha=0.8)
        validation = _line(loss, metrics, "eval_loss", ACCENT, marker="o", markersize=4)
        values = _points(metrics, "loss")[1] + _points(metrics, "eval_loss")[1]
        if min(values) > 0 and max(values) / min(values) > 10:
            loss.set_yscale("log")
        _frame(loss, "SFT: loss per completion token", "nats a token")
        _line(rate, metrics, "learning_rate", QUIET)
        _frame(rate, "Learning rate", "", "optimizer step")
        rate.set_ylim(bottom=0)
        _name_ends(loss, [("training", training, COLORS["sft"]), ("validation", validation, ACCENT)])

    return _draw(2, 1, 11, 5, plot, sharex=True, height_ratios=[3, 1])


def draw_margins(margins: Sequence[Row]) -> bytes | None:
    """Draw the margins, free of beta: how far the policy has moved chosen and rejected answers apart."""
    if not margins:
        return None

    def plot(grid: Any) -> None:
        axes = grid[0][0]
        steps = [row["step"] for row in margins]
        for low, high, alpha in (("min", "max", 0.10), ("p10", "p90", 0.25)):
            bounds = [row[low] for row in margins], [row[high] for row in margins]
            axes.fill_between(steps, *bounds, color=COLORS["dpo"], alpha=alpha, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        median = _line(axes, margins, "median", COLORS["dpo"], linewidth=2.2)
        quantiles = (("smallest", "min"), ("10%", "p10"), ("90%", "p90"), ("largest", "max"))
        ends = [(name, margins[-1][key], QUIET) for name, key in quantiles]
        _name_ends(axes, [("median", median, COLORS["dpo"]), *ends])
        _frame(axes, "DPO: margin of a step's pairs, free of beta", "nats", "optimizer step")

    return _draw(1, 1, 11, 3.8, plot)


def draw_beta(trace: Sequence[Row], metrics: Sequence[Row], delta: float | None) -> bytes | None:
    """Draw beta, the threshold tau that the controller holds margins against, and the share of margins above it."""
    steps = [row for row in trace if "step" in row]
    if not steps:
        steps = [{"step": row["step"], "beta": row["beta/effective"]} for row in metrics if "beta/effective" in row]
    panels = [key for key in ("beta", "tau", "p_hat") if _points(steps, key)[0]]
    if not panels:
        return None
    titles = {
        "beta": "beta: how hard the policy is held to the SFT student",
        "tau": "tau: the margin that counts as too far",
        "p_hat": "p_hat: share of the step's margins above tau",
    }

    def plot(grid: Any) -> None:
        for axes, key in zip(grid[:, 0], panels, strict=True):
            steps_of, values = _points(steps, key)
            axes.plot(steps_of, values, color=COLORS["dpo"], alpha=0.85)
            _frame(axes, titles[key], "nats" if key == "tau" else "")
        if "p_hat" in panels:
            _percent(grid[-1][0].yaxis)
            if delta is not None:
                grid[-1][0].axhline(delta, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
                _name_ends(grid[-1][0], [(f"delta {delta:.0%}", delta, INK)])
        ends = [row for row in trace if row.get("type") == "warmup_end"]
        if ends and "step" in ends[0]:
            grid[0][0].axvline(ends[0]["step"], color=QUIET, linewidth=0.9, linestyle=":")
        grid[-1][0].set_xlabel("optimizer step")

    return _draw(len(panels), 1, 11, 0.6 + 2.0 * len(panels), plot, sharex=True)


def draw_dpo(metrics: Sequence[Row], chosen_step: int | None) -> bytes | None:
    """Draw the share of pairs in order, the log-probabilities, and right answers on validation."""
    if not any("rewards/accuracies" in row for row in metrics):
        return None
    has_answers = any("eval_semantic" in row for row in metrics)

    def plot(grid: Any) -> None:
        order, logps = grid[0][0], grid[0][1]
        training = _line(order, metrics, "rewards/accuracies", COLORS["dpo"], alpha=0.6)
        trained = [row for row in metrics if row.get("step") != 0]  # where all margins are 0 none is in order
        held_out = _line(order, trained, "eval_rewards/accuracies", ACCENT, marker="o", markersize=4)
        _percent(order.yaxis)
        _frame(order, "Pairs in the right order", "share of pairs", "optimizer step")
        _name_ends(order, [("training", training, COLORS["dpo"]), ("held out", held_out, ACCENT)])
        chosen = _line(logps, metrics, "logps/chosen", COLORS["sft"])
        rejected = _line(logps, metrics, "logps/rejected", COLORS["dpo"])
        _frame(logps, "Log-probability of completions", "nats", "optimizer step")
        _name_ends(logps, [("chosen", chosen, COLORS["sft"]), ("rejected", rejected, COLORS["dpo"])])
        if has_answers:
            _plot_answers(grid[0][2], metrics, chosen_step)

    columns = 3 if has_answers else 2
    return _draw(1, columns, 11 if has_answers else 9, 3.6, plot)


def _plot_answers(axes: Any, metrics: Sequence[Row], chosen_step: int | None) -> None:
    """Right answers on validation, with a ring around the checkpoint that was chosen."""
    valid = _line(axes, metrics, "eval_valid", QUIET, marker="o", markersize=4)
    asked = _line(axes, metrics, "eval_semantic", ACCENT, marker="o", markersize=4)
    for step, value in zip(*_points(metrics, "eval_semantic"), strict=True):
        if step == chosen_step:
            axes.plot([step], [value], marker="o", markersize=11, fillstyle="none", color=INK)
            place = {"xytext": (0, -17), "textcoords": "offset points", "ha": "center", "fontsize": 9}
            axes.annotate("chosen", (step, value), **place, bbox={"color": "white", "pad": 1, "alpha": 0.8})
    axes.margins(y=0.14)
    _percent(axes.yaxis)
    _frame(axes, "Answers to validation requests", "share of requests", "optimizer step")
    _name_ends(axes, [("valid", valid, QUIET), ("as asked", asked, ACCENT)])


# ---------------------------------------------------------------------------------------------------------------------
# Several runs


def draw_compared_runs(runs: Sequence[Row]) -> bytes:
    """Draw beta, margins (median, 10% to 90%), pairs in order and log-probabilities of several DPO runs over steps.

    `runs`: {name, color, metrics, margins}.
    """
    panels = {
        "beta/effective": ("beta", ""),
        "median": ("Margin of a step's pairs: median, 10% to 90%", "nats"),
        "rewards/accuracies": ("Pairs in the right order", "share of pairs"),
        "eval_semantic": ("Answers to validation requests as asked", "share of requests"),
        "logps/chosen": ("Log-probability of chosen answers", "nats"),
        "logps/rejected": ("Log-probability of rejected answers", "nats"),
    }

    def plot(grid: Any) -> None:
        for axes, (key, (title, unit)) in zip(grid.flat, panels.items(), strict=True):
            for run in runs:
                rows = run["margins"] if key == "median" else run["metrics"]
                _line(
                    axes,
                    rows,
                    key,
                    run["color"],
                    alpha=0.85,
                    linewidth=1.3,
                    marker="o" if "eval" in key else None,
                    markersize=3,
                )
                if key == "median":
                    bounds = _points(rows, "p10")[1], _points(rows, "p90")[1]
                    axes.fill_between(_points(rows, "p10")[0], *bounds, color=run["color"], alpha=0.12, linewidth=0)
            _frame(axes, title, unit)
            if unit.startswith("share"):
                _percent(axes.yaxis)
        for axes in grid[-1]:
            axes.set_xlabel("optimizer step")
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=run["color"], label=run["name"]) for run in runs]
        grid[0][0].figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)

    return _draw(3, 2, 11, 9, plot, sharex=True)
