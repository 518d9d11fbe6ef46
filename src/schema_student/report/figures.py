"""Say what the plots of a report show: rows of the artifacts -> charts, one function a figure; None without data.

One color a student throughout, names beside what they name.
"""

from __future__ import annotations

from collections.abc import Sequence

from schema_student.core.jsonl import Row
from schema_student.core.markdown import shorten
from schema_student.report.charts import Bar, Bars, Figure, Lines, Panel, Series, Stacks, smooth
from schema_student.schema.ranks import RANK_NAMES

LONGEST_NAME = 60  # characters of what stands beside a bar
RATES = {
    "schema_valid_rate": "valid",
    "semantic_pass_rate": "valid and as asked",
    "exact_match_rate": "exactly the target",
    "wrong_but_valid_rate": "valid but wrong",
}


def say(name: str) -> str:
    """Write the name of a split or a case for people."""
    return shorten(name.replace("_", " "), LONGEST_NAME)


def capital(text: str) -> str:
    """Begin a text with a capital."""
    return text[:1].upper() + text[1:]


# ---------------------------------------------------------------------------------------------------------------------
# Evaluations


def show_rates(students: Sequence[Row], splits: Sequence[str]) -> Figure | None:
    """Show each rate of each student with its 95% interval, a panel a split."""
    panels = []
    for split in splits:
        known = [(student, student["summary"]["splits"].get(split, {})) for student in students]
        groups = [
            (
                name,
                [_bar(student, rates[key]) for student, rates in known if rates.get(key, {}).get("rate") is not None],
            )
            for key, name in RATES.items()
        ]
        most = max((rates.get("total", 0) for _, rates in known), default=0)
        panels.append(Bars(f"{say(split)}: {most} prompts", groups))
    caption = "Rates of each student on each split; lines are 95% intervals (Wilson)"
    return Figure("rates", caption, panels, _legend(students)) if panels else None


def _bar(student: Row, rate: Row) -> Bar:
    return Bar(student["label"], student["color"], rate["rate"], rate["low"], rate["high"])


def _legend(students: Sequence[Row]) -> list[tuple[str, str]]:
    return [(student["label"], student["color"]) for student in students]


def show_outcomes(students: Sequence[Row]) -> Figure | None:
    """Show what became of the prompts, a bar a student: the ranks, worst first."""
    rows = []
    for student in students:
        ranks = [row.rank for row in student["rows"]]
        parts = [
            Bar(name, f"rank{rank}", ranks.count(rank) / max(1, len(ranks))) for rank, name in enumerate(RANK_NAMES)
        ]
        rows.append((student["label"], parts))
    legend = [(name, f"rank{rank}") for rank, name in enumerate(RANK_NAMES)]
    return (
        Figure("outcomes", "What became of all prompts", (Stacks("Share of all prompts", rows),), legend)
        if rows
        else None
    )


# ---------------------------------------------------------------------------------------------------------------------
# Data

PANELS = {  # of a description's balance, the most telling first -> title
    "operators": "Operators",
    "field types": "Types of fields asked for",
    "value types": "Types of values",
    "words": "Words of a request",
    "conditions": "Conditions a request",
    "kinds": "Kinds of request",
    "properties given": "Properties given",
    "languages": "Languages",
    "properties of the schema": "Properties of a schema",
    "schema depth": "Levels of a schema",
}
SHOWN_PANELS = 6
SIDES = {"training": "blue", "tests": "vermillion"}


def show_balance(balance: Row) -> Figure | None:
    """Show what requests are made of, in shares of training and of tests: one panel a question, from describe()."""
    shown = [name for name in PANELS if name in balance][:SHOWN_PANELS]
    if not shown:
        return None
    panels = [Bars(PANELS[name], _sides(balance[name])) for name in shown]
    return Figure("data", "What requests are made of: shares of training and of tests", panels, [*SIDES.items()])


def _sides(cases: Row) -> list[tuple[str, list[Bar]]]:
    totals = {side: sum(counts[side] for counts in cases.values()) or 1 for side in SIDES}
    return [
        (say(case), [Bar(side, color, counts[side] / totals[side]) for side, color in SIDES.items()])
        for case, counts in cases.items()
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Training


def find_points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """Find (step, value) of the rows that have a value."""
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None and "step" in row]


def _noisy(name: str, color: str, points: Sequence[tuple[float, float]]) -> list[Series]:
    """A value of single steps, faint behind its running mean."""
    return (
        [Series(f"{name}, step by step", color, points, faint=True), Series(name, color, smooth(points))]
        if points
        else []
    )


def show_sft(metrics: Sequence[Row], key: str = "sft", title: str = "SFT") -> Figure | None:
    """Show the losses of training and validation; the learning rate beside them."""
    loss = find_points(metrics, "loss")
    if not loss:
        return None
    series = _noisy("training", "blue", loss)
    if held_out := find_points(metrics, "eval_loss"):
        series.append(Series("validation", "green", held_out, dots=True))
    panels: list[Panel] = [Lines("Loss", "nats a completion token", series, from_zero=True)]
    shares = (("valid", "eval_valid", "gray"), ("valid and as asked", "eval_as_asked", "green"))
    found = [(name, color, find_points(metrics, key)) for name, key, color in shares]
    if answered := [Series(name, color, points, dots=True) for name, color, points in found if points]:
        panels.append(Lines("Answers to validation requests", "share of requests", answered, percent=True))
    if rate := find_points(metrics, "learning_rate"):
        panels.append(Lines("Learning rate", "", [Series("learning rate", "gray", rate)], from_zero=True))
    return Figure(key, f"{title}: loss of training and validation, learning rate", panels)


def show_learning_curve(curve: Row | None) -> Figure | None:
    """Show what a run answers that was trained on shares of its rows: rates with their 95% intervals."""
    if not curve:
        return None
    named = (("valid", "valid", "gray"), ("valid and as asked", "as_asked", "green"))
    found = {key: [(point["rows"], point[key]) for point in curve["points"]] for _, key, _ in named}
    series = [_curve(name, color, found[key]) for name, key, color in named]
    panel = Lines("Answers to the tests", "share of prompts", series, percent=True, x="training rows")
    return Figure("learning_curve", "Students trained on shares of the rows, on the same tests", (panel,))


def _curve(name: str, color: str, found: Sequence[tuple[int, Row]]) -> Series:
    """A rate over numbers of rows, with its interval."""
    known = [(rows, rate) for rows, rate in found if rate["rate"] is not None]
    points = [(rows, rate["rate"]) for rows, rate in known]
    return Series(name, color, points, [(rows, rate["low"], rate["high"]) for rows, rate in known], dots=True)


def show_margins(margins: Sequence[Row], key: str = "margins", title: str = "DPO") -> Figure | None:
    """Show the margins, free of beta: how far the policy has moved chosen and rejected answers apart."""
    if not margins:
        return None
    band = [(row["step"], row["p10"], row["p90"]) for row in margins]
    series = Series("median, and 10% to 90%", "vermillion", find_points(margins, "median"), band)
    panel = Lines("Margin of a step's pairs, free of beta", "nats", (series,), across=((0.0, ""),))
    return Figure(key, f"{title}: margins of pairs over steps", (panel,))


def show_beta(trace: Sequence[Row], metrics: Sequence[Row], delta: float | None, key: str = "beta") -> Figure | None:
    """Show beta, the threshold tau that the controller holds margins against, and the share of margins above it."""
    steps = [row for row in trace if "step" in row and row.get("type") != "warmup_end"]
    if not steps:
        steps = [{"step": row["step"], "beta": row["beta/effective"]} for row in metrics if "beta/effective" in row]
    level = ((delta, f"delta {delta:.0%}"),) if delta is not None else ()
    titles = {
        "beta": ("beta: how hard the student is held to the one before", ""),
        "tau": ("tau: the margin that counts as too far", "nats"),
        "p_hat": ("p_hat: share of a step's margins above tau", "share"),
    }
    panels = []
    for name, (title, unit) in titles.items():
        if points := find_points(steps, name):
            shown = _noisy(name, "vermillion", points) if name == "p_hat" else [Series(name, "vermillion", points)]
            panels.append(Lines(title, unit, shown, name == "p_hat", across=level if name == "p_hat" else ()))
    return Figure(key, "Beta over steps", panels) if panels else None


def show_alignment(
    metrics: Sequence[Row], chosen_step: int | None, key: str = "dpo", title: str = "DPO"
) -> Figure | None:
    """Show what an alignment logs: pairs in order, log-probabilities, rewards, KL, right answers on validation."""
    panels = [
        panel
        for panel in (_order(metrics), _logps(metrics), *_rewards(metrics), _answers(metrics, chosen_step))
        if panel
    ]
    return Figure(key, f"{title}: what training and validation logged", panels) if panels else None


def _order(metrics: Sequence[Row]) -> Lines | None:
    trained = [row for row in metrics if row.get("step") != 0]  # where all margins are 0 none is in order
    series = _noisy("training", "vermillion", find_points(metrics, "rewards/accuracies"))
    if held_out := find_points(trained, "eval_rewards/accuracies"):
        series.append(Series("held out", "green", held_out, dots=True))
    return Lines("Pairs in the right order", "share of pairs", series, percent=True) if series else None


def _logps(metrics: Sequence[Row]) -> Lines | None:
    sides = (("chosen", "blue"), ("rejected", "vermillion"))
    found = {side: find_points(metrics, f"logps/{side}") for side, _ in sides}
    series = [Series(side, color, smooth(found[side])) for side, color in sides if found[side]]
    return Lines("Log-probability of completions", "nats", series) if series else None


def _rewards(metrics: Sequence[Row]) -> list[Lines]:
    titles = {"reward": "Mean reward", "kl": "KL from the student before", "eval_reward": "Reward on validation"}
    found = {name: find_points(metrics, name) for name in titles}
    return [Lines(titles[name], "", _noisy(name, "vermillion", points)) for name, points in found.items() if points]


def _answers(metrics: Sequence[Row], chosen_step: int | None) -> Lines | None:
    """Valid and right answers on validation, with a ring around the checkpoint that was chosen."""
    names = (
        ("valid", "eval_valid", "blue"),
        ("greedy", "eval_greedy", "gray"),
        ("P(truth)", "eval_p_truth", "green"),
    )
    series = [
        Series(name, color, points, dots=True) for name, key, color in names if (points := find_points(metrics, key))
    ]
    if not series:
        return None
    ring = next((point for point in series[-1].points if point[0] == chosen_step), None)
    said = "Valid and right answers to validation requests" + (f"; ring: step {chosen_step}, chosen" if ring else "")
    return Lines(said, "share of requests", series, percent=True, ring=ring)


# ---------------------------------------------------------------------------------------------------------------------
# Several runs

COMPARED = {
    "beta/effective": ("beta", "", False),
    "median": ("Margin of a step's pairs: median, 10% to 90%", "nats", False),
    "rewards/accuracies": ("Pairs in the right order", "share of pairs", True),
    "eval_p_truth": ("P(truth) of validation requests", "share of samples", True),
    "logps/chosen": ("Log-probability of chosen answers", "nats", False),
    "logps/rejected": ("Log-probability of rejected answers", "nats", False),
}


def show_compared_runs(runs: Sequence[Row]) -> Figure:
    """Show what several runs of DPO logged over steps; a run is {name, color, metrics, margins}."""
    panels = []
    for key, (title, unit, percent) in COMPARED.items():
        series = [_of_run(run, key) for run in runs]
        panels.append(Lines(title, unit, [each for each in series if each.points], percent))
    legend = [(run["name"], run["color"]) for run in runs]
    return Figure("compare", "The runs over optimizer steps", [panel for panel in panels if panel.series], legend)


def _of_run(run: Row, key: str) -> Series:
    rows = run["margins"] if key == "median" else run["metrics"]
    points = find_points(rows, key)
    if key == "median":
        return Series(run["name"], run["color"], points, [(row["step"], row["p10"], row["p90"]) for row in rows])
    return Series(run["name"], run["color"], points if "eval" in key else smooth(points), dots="eval" in key)
