"""Draw the plots of a report: rows of the artifacts -> PNG bytes, one function a figure; None without data.

One color a student throughout (Okabe and Ito's palette, safe for color-blind eyes), labels beside what they name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.report.plotting import (
    ACCENT,
    COLORS,
    INK,
    QUIET,
    draw_grid,
    name_ends,
    percent_axis,
    plot_line,
    points,
    set_titles,
)

RANK_COLORS = ("#4b2142", "#8a3b6a", "#c9699a", "#e8a5b8", "#f3d9a4", "#2e8b6f")
RATES = {
    "schema_valid_rate": "valid",
    "semantic_pass_rate": "valid and as asked",
    "exact_match_rate": "exactly the target",
    "wrong_but_valid_rate": "valid but wrong",
}


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
            percent_axis(axes.xaxis)
            totals = {student["summary"]["splits"].get(split, {}).get("total", 0) for student in students}
            set_titles(axes, split.replace("_", " "), xlabel=f"share of {max(totals)} prompts, with 95% interval")

    def legend(grid: Any) -> None:
        plot(grid)
        from matplotlib.patches import Patch

        handles = [Patch(color=student["color"], label=student["label"]) for student in students]
        grid[0][0].figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)

    height = 1.6 + len(RATES) * (0.35 + 0.26 * len(students))
    return draw_grid(1, len(splits), 11, height, legend, sharey=True)


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
        percent_axis(axes.xaxis)
        axes.set_xlabel("share of all test prompts")
        from matplotlib.patches import Patch

        handles = [Patch(color=color, label=name) for color, name in zip(RANK_COLORS, names, strict=True)]
        axes.figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)

    return draw_grid(1, 1, 11, 1.7 + 0.55 * len(students), plot)


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
            percent_axis(axes.xaxis)
            set_titles(axes, PANELS[name])
        for axes in places[len(shown) :]:
            axes.set_visible(False)
        handles = [Patch(color=color, label=side) for side, color in sides.items()]
        grid[0][0].figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)

    longest = max(len(balance[name]) for name in shown)
    return draw_grid(rows, columns, 11, 0.7 + rows * (1.0 + 0.22 * longest), plot)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def draw_sft(metrics: Sequence[Row]) -> bytes | None:
    """Draw the losses of training and validation; the learning rate below."""
    if not any("loss" in row for row in metrics):
        return None

    def plot(grid: Any) -> None:
        (loss,), (rate,) = grid
        training = plot_line(loss, metrics, "loss", COLORS["sft"], alpha=0.8)
        validation = plot_line(loss, metrics, "eval_loss", ACCENT, marker="o", markersize=4)
        values = points(metrics, "loss")[1] + points(metrics, "eval_loss")[1]
        if min(values) > 0 and max(values) / min(values) > 10:
            loss.set_yscale("log")
        set_titles(loss, "SFT: loss per completion token", "nats a token")
        plot_line(rate, metrics, "learning_rate", QUIET)
        set_titles(rate, "Learning rate", "", "optimizer step")
        rate.set_ylim(bottom=0)
        name_ends(loss, [("training", training, COLORS["sft"]), ("validation", validation, ACCENT)])

    return draw_grid(2, 1, 11, 5, plot, sharex=True, height_ratios=[3, 1])


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
        median = plot_line(axes, margins, "median", COLORS["dpo"], linewidth=2.2)
        quantiles = (("smallest", "min"), ("10%", "p10"), ("90%", "p90"), ("largest", "max"))
        ends = [(name, margins[-1][key], QUIET) for name, key in quantiles]
        name_ends(axes, [("median", median, COLORS["dpo"]), *ends])
        set_titles(axes, "DPO: margin of a step's pairs, free of beta", "nats", "optimizer step")

    return draw_grid(1, 1, 11, 3.8, plot)


def draw_beta(trace: Sequence[Row], metrics: Sequence[Row], delta: float | None) -> bytes | None:
    """Draw beta, the threshold tau that the controller holds margins against, and the share of margins above it."""
    steps = [row for row in trace if "step" in row]
    if not steps:
        steps = [{"step": row["step"], "beta": row["beta/effective"]} for row in metrics if "beta/effective" in row]
    panels = [key for key in ("beta", "tau", "p_hat") if points(steps, key)[0]]
    if not panels:
        return None
    titles = {
        "beta": "beta: how hard the policy is held to the SFT student",
        "tau": "tau: the margin that counts as too far",
        "p_hat": "p_hat: share of the step's margins above tau",
    }

    def plot(grid: Any) -> None:
        for axes, key in zip(grid[:, 0], panels, strict=True):
            steps_of, values = points(steps, key)
            axes.plot(steps_of, values, color=COLORS["dpo"], alpha=0.85)
            set_titles(axes, titles[key], "nats" if key == "tau" else "")
        if "p_hat" in panels:
            percent_axis(grid[-1][0].yaxis)
            if delta is not None:
                grid[-1][0].axhline(delta, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
                name_ends(grid[-1][0], [(f"delta {delta:.0%}", delta, INK)])
        ends = [row for row in trace if row.get("type") == "warmup_end"]
        if ends and "step" in ends[0]:
            grid[0][0].axvline(ends[0]["step"], color=QUIET, linewidth=0.9, linestyle=":")
        grid[-1][0].set_xlabel("optimizer step")

    return draw_grid(len(panels), 1, 11, 0.6 + 2.0 * len(panels), plot, sharex=True)


def draw_dpo(metrics: Sequence[Row], chosen_step: int | None) -> bytes | None:
    """Draw the share of pairs in order, the log-probabilities, and right answers on validation."""
    if not any("rewards/accuracies" in row for row in metrics):
        return None
    has_answers = any("eval_semantic" in row for row in metrics)

    def plot(grid: Any) -> None:
        order, logps = grid[0][0], grid[0][1]
        training = plot_line(order, metrics, "rewards/accuracies", COLORS["dpo"], alpha=0.6)
        trained = [row for row in metrics if row.get("step") != 0]  # where all margins are 0 none is in order
        held_out = plot_line(order, trained, "eval_rewards/accuracies", ACCENT, marker="o", markersize=4)
        percent_axis(order.yaxis)
        set_titles(order, "Pairs in the right order", "share of pairs", "optimizer step")
        name_ends(order, [("training", training, COLORS["dpo"]), ("held out", held_out, ACCENT)])
        chosen = plot_line(logps, metrics, "logps/chosen", COLORS["sft"])
        rejected = plot_line(logps, metrics, "logps/rejected", COLORS["dpo"])
        set_titles(logps, "Log-probability of completions", "nats", "optimizer step")
        name_ends(logps, [("chosen", chosen, COLORS["sft"]), ("rejected", rejected, COLORS["dpo"])])
        if has_answers:
            _plot_answers(grid[0][2], metrics, chosen_step)

    columns = 3 if has_answers else 2
    return draw_grid(1, columns, 11 if has_answers else 9, 3.6, plot)


def _plot_answers(axes: Any, metrics: Sequence[Row], chosen_step: int | None) -> None:
    """Right answers on validation, with a ring around the checkpoint that was chosen."""
    valid = plot_line(axes, metrics, "eval_valid", QUIET, marker="o", markersize=4)
    asked = plot_line(axes, metrics, "eval_semantic", ACCENT, marker="o", markersize=4)
    for step, value in zip(*points(metrics, "eval_semantic"), strict=True):
        if step == chosen_step:
            axes.plot([step], [value], marker="o", markersize=11, fillstyle="none", color=INK)
            place = {"xytext": (0, -17), "textcoords": "offset points", "ha": "center", "fontsize": 9}
            axes.annotate("chosen", (step, value), **place, bbox={"color": "white", "pad": 1, "alpha": 0.8})
    axes.margins(y=0.14)
    percent_axis(axes.yaxis)
    set_titles(axes, "Answers to validation requests", "share of requests", "optimizer step")
    name_ends(axes, [("valid", valid, QUIET), ("as asked", asked, ACCENT)])


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
                _plot_run(axes, run, key)
            set_titles(axes, title, unit)
            if unit.startswith("share"):
                percent_axis(axes.yaxis)
        for axes in grid[-1]:
            axes.set_xlabel("optimizer step")
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=run["color"], label=run["name"]) for run in runs]
        grid[0][0].figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)

    return draw_grid(3, 2, 11, 9, plot, sharex=True)


def _plot_run(axes: Any, run: Row, key: str) -> None:
    """Plot one logged value of a run; of margins the median, with 10% to 90% behind it."""
    rows = run["margins"] if key == "median" else run["metrics"]
    style = {"alpha": 0.85, "linewidth": 1.3, "marker": "o" if "eval" in key else None, "markersize": 3}
    plot_line(axes, rows, key, run["color"], **style)
    if key == "median":
        (steps, low), (_, high) = points(rows, "p10"), points(rows, "p90")
        axes.fill_between(steps, low, high, color=run["color"], alpha=0.12, linewidth=0)
