"""Every figure shows the numbers of its rows: values, names, order, limits, each against a table made by hand."""

from types import SimpleNamespace

import pytest

from schema_student.report import figures
from schema_student.report.charts import Bar, Bars, Lines, Series, Stacks, list_numbers, pick_ticks, say_ticks, smooth
from schema_student.schema.ranks import RANK_NAMES


def rate(share, low, high):
    return {"rate": share, "low": low, "high": high}


def student(label, color, **more):
    return {"label": label, "color": color, **more}


def test_rates_stand_by_split_then_rate_then_student_with_their_intervals():
    seen = {"total": 40, "schema_valid_rate": rate(0.5, 0.35, 0.65), "semantic_pass_rate": rate(0.25, 0.14, 0.4)}
    better = {"total": 39, "schema_valid_rate": rate(0.75, 0.6, 0.86), "exact_match_rate": {"rate": None}}
    students = [
        student("base", "gray", summary={"splits": {"test_seen": seen}}),
        student("SFT", "blue", summary={"splits": {"test_seen": better, "test_unseen": {"total": 7}}}),
    ]
    figure = figures.show_rates(students, ["test_seen", "test_unseen"])
    first, second = figure.panels
    base, sft = Bar("base", "gray", 0.5, 0.35, 0.65), Bar("SFT", "blue", 0.75, 0.6, 0.86)
    assert first == Bars(
        "test seen: 40 prompts",
        [
            ("valid", [base, sft]),
            ("valid and as asked", [Bar("base", "gray", 0.25, 0.14, 0.4)]),
            ("exactly the target", []),
            ("valid but wrong", []),
        ],
    )
    assert second.title == "test unseen: 7 prompts" and not any(bars for _, bars in second.groups)
    assert (figure.name, figure.legend) == ("rates", [("base", "gray"), ("SFT", "blue")])
    assert figures.show_rates(students, []) is None


def test_outcomes_are_shares_of_ranks_worst_first():
    rows = [SimpleNamespace(rank=rank) for rank in (5, 0, 5, 3)]
    figure = figures.show_outcomes([student("base", "gray", rows=rows), student("none", "blue", rows=[])])
    (panel,) = figure.panels
    shares = {"base": [0.25, 0, 0, 0.25, 0, 0.5], "none": [0] * 6}
    assert panel == Stacks(
        "Share of all prompts",
        [
            (
                name,
                [Bar(word, f"rank{i}", share) for i, (word, share) in enumerate(zip(RANK_NAMES, found, strict=True))],
            )
            for name, found in shares.items()
        ],
    )
    assert figure.legend == [(word, f"rank{i}") for i, word in enumerate(RANK_NAMES)]
    assert figures.show_outcomes([]) is None


def test_the_balance_is_of_each_side_alone_the_most_telling_questions_first():
    counts = {"a_case": {"training": 3, "tests": 0}, "b": {"training": 1, "tests": 5}}
    balance = {name: counts for name in ("languages", "kinds", "schema depth", "words", "operators")}
    balance |= {"value types": counts, "field types": {"c": {"training": 0, "tests": 0}}, "of no panel": counts}
    figure = figures.show_balance(balance)
    titles = ["Operators", "Types of fields asked for", "Types of values", "Words of a request"]
    assert [panel.title for panel in figure.panels] == [*titles, "Kinds of request", "Languages"]
    assert figure.panels[0].groups == [
        ("a case", [Bar("training", "blue", 0.75), Bar("tests", "vermillion", 0.0)]),
        ("b", [Bar("training", "blue", 0.25), Bar("tests", "vermillion", 1.0)]),
    ]
    assert figure.panels[1].groups == [("c", [Bar("training", "blue", 0.0), Bar("tests", "vermillion", 0.0)])]
    assert figure.legend == [("training", "blue"), ("tests", "vermillion")]
    assert figures.show_balance({"of no panel": counts}) is None


def test_a_running_mean_is_of_the_steps_around_fewer_at_the_ends():
    points = [(step, float(value)) for step, value in enumerate((0, 0, 10, 0, 0, 5))]
    assert smooth(points) == [(0, 10 / 3), (1, 2.5), (2, 2.0), (3, 3.0), (4, 3.75), (5, 5 / 3)]
    assert smooth(points, 3) == [(0, 0.0), (1, 10 / 3), (2, 10 / 3), (3, 10 / 3), (4, 5 / 3), (5, 2.5)]
    wide = smooth([(step, float(step == 100)) for step in range(200)])  # a twentieth of 200
    assert [step for step, value in wide if value] == list(range(95, 106)) and wide[100][1] == pytest.approx(1 / 11)


def test_sft_shows_losses_and_learning_rate_from_zero():
    rows = [
        {"step": 1, "loss": 2.0, "learning_rate": 0.1},
        {"step": 2, "loss": 1.0, "learning_rate": 0.2},
        {"step": 2, "eval_loss": 0.5},
        {"loss": 9.0},
    ]
    figure = figures.show_sft(rows, "further", "Further SFT")
    loss, speed = figure.panels
    assert loss == Lines(
        "Loss",
        "nats a completion token",
        [
            Series("training, step by step", "blue", [(1, 2.0), (2, 1.0)], faint=True),
            Series("training", "blue", [(1, 1.5), (2, 1.5)]),
            Series("validation", "green", [(2, 0.5)], dots=True),
        ],
        from_zero=True,
    )
    assert speed == Lines("Learning rate", "", [Series("learning rate", "gray", [(1, 0.1), (2, 0.2)])], from_zero=True)
    assert (figure.name, figure.caption.partition(":")[0]) == ("further", "Further SFT")
    assert figures.show_sft([{"step": 2, "eval_loss": 0.5}]) is None


def test_a_learning_curve_has_rates_over_rows_and_leaves_out_what_is_not_known():
    unknown = {"rate": None, "low": None, "high": None}
    points = [
        {"rows": 25, "valid": rate(0.5, 0.4, 0.6), "as_asked": unknown},
        {"rows": 100, "valid": rate(0.9, 0.8, 0.95), "as_asked": rate(0.7, 0.6, 0.8)},
    ]
    (panel,) = figures.show_learning_curve({"points": points}).panels
    valid = Series("valid", "gray", [(25, 0.5), (100, 0.9)], [(25, 0.4, 0.6), (100, 0.8, 0.95)], dots=True)
    asked = Series("valid and as asked", "green", [(100, 0.7)], [(100, 0.6, 0.8)], dots=True)
    assert panel == Lines("Answers to the tests", "share of prompts", [valid, asked], percent=True, x="training rows")


MARGINS = [{"step": 1, "median": 0.5, "p10": -1.0, "p90": 2.0}, {"step": 2, "median": 0.75, "p10": -0.5, "p90": 3.0}]
BAND = [(1, -1.0, 2.0), (2, -0.5, 3.0)]


def test_margins_are_medians_between_their_tenths_over_a_line_at_zero():
    figure = figures.show_margins(MARGINS)
    (panel,) = figure.panels
    series = Series("median, and 10% to 90%", "vermillion", [(1, 0.5), (2, 0.75)], BAND)
    assert panel == Lines("Margin of a step's pairs, free of beta", "nats", (series,), across=((0.0, ""),))
    assert figures.show_margins([]) is None


def test_beta_is_of_the_trace_with_delta_across_the_share_or_else_of_the_log():
    trace = [{"type": "warmup_end", "step": 3, "tau_0": 9.0, "beta": 9.0}]
    trace += [{"step": 4, "beta": 0.1, "tau": 2.0, "p_hat": 0.0}, {"step": 5, "beta": 0.2, "tau": 2.5, "p_hat": 0.5}]
    beta, tau, share = figures.show_beta(trace, [{"step": 1, "beta/effective": 7.0}], 0.1).panels
    assert beta.series == [Series("beta", "vermillion", [(4, 0.1), (5, 0.2)])] and not beta.across
    assert tau.series == [Series("tau", "vermillion", [(4, 2.0), (5, 2.5)])] and (tau.unit, tau.percent) == (
        "nats",
        False,
    )
    assert share.series[0].points == [(4, 0.0), (5, 0.5)] and share.series[0].faint
    assert share.series[1].points == [(4, 0.25), (5, 0.25)]
    assert share.percent and share.across == ((0.1, "delta 10%"),)
    (fixed,) = figures.show_beta([], [{"step": 1, "beta/effective": 0.3}, {"step": 1, "eval_loss": 1.0}], None).panels
    assert fixed.series == [Series("beta", "vermillion", [(1, 0.3)])]
    assert figures.show_beta([], [{"step": 1}], 0.1) is None


def test_an_alignment_shows_what_it_logged_and_a_ring_where_it_was_chosen():
    rows = [
        {"step": 0, "eval_valid": 0.5, "eval_greedy": 0.25, "eval_p_truth": 0.2, "eval_rewards/accuracies": 0.0},
        {"step": 1, "rewards/accuracies": 0.5, "logps/chosen": -4.0, "logps/rejected": -8.0, "reward": 1.0, "kl": 0.0},
        {"step": 2, "rewards/accuracies": 1.0, "logps/chosen": -2.0, "logps/rejected": -9.0, "reward": 3.0, "kl": 0.5},
        {"step": 2, "eval_valid": 1.0, "eval_greedy": 0.75, "eval_p_truth": 0.6, "eval_rewards/accuracies": 0.75},
    ]
    figure = figures.show_alignment(rows, 2, "grpo", "GRPO")
    drawn = {panel.title: {each.name: each.points for each in panel.series} for panel in figure.panels}
    assert drawn == {
        "Pairs in the right order": {
            "training, step by step": [(1, 0.5), (2, 1.0)],
            "training": [(1, 0.75), (2, 0.75)],
            "held out": [(2, 0.75)],
        },
        "Log-probability of completions": {"chosen": [(1, -3.0), (2, -3.0)], "rejected": [(1, -8.5), (2, -8.5)]},
        "Mean reward": {"reward, step by step": [(1, 1.0), (2, 3.0)], "reward": [(1, 2.0), (2, 2.0)]},
        "KL from the student before": {"kl, step by step": [(1, 0.0), (2, 0.5)], "kl": [(1, 0.25), (2, 0.25)]},
        "Valid and right answers to validation requests; ring: step 2, chosen": {
            "valid": [(0, 0.5), (2, 1.0)],
            "greedy": [(0, 0.25), (2, 0.75)],
            "P(truth)": [(0, 0.2), (2, 0.6)],
        },
    }
    shown = [(panel.unit, panel.percent, panel.from_zero, panel.x) for panel in figure.panels]
    step = (False, "optimizer step")
    assert shown == [
        ("share of pairs", True, *step),
        ("nats", False, *step),
        ("", False, *step),
        ("", False, *step),
        ("share of requests", True, *step),
    ]
    styles = [[(each.color, each.faint, each.dots) for each in panel.series] for panel in figure.panels[:4]]
    noisy = [("vermillion", True, False), ("vermillion", False, False)]
    colors = [("blue", False, False), ("vermillion", False, False)]
    assert styles == [[*noisy, ("green", False, True)], colors, noisy, noisy]
    assert figure.panels[-1].ring == (2, 0.6) and all(each.dots for each in figure.panels[-1].series)
    assert [each.color for each in figure.panels[-1].series] == ["blue", "gray", "green"]
    assert (figure.name, figure.caption.partition(":")[0]) == ("grpo", "GRPO")
    assert figures.show_alignment(rows, 7).panels[-1].ring is None
    assert figures.show_alignment([{"step": 1, "loss": 1.0}], None) is None


def test_each_measure_of_compared_runs_has_its_own_title_unit_and_points():
    names = ("beta/effective", "rewards/accuracies", "eval_p_truth", "logps/chosen", "logps/rejected")
    rows = [{"step": step, **dict.fromkeys(names, float(step))} for step in (1, 4)]
    figure = figures.show_compared_runs([{"name": "one", "color": "blue", "margins": MARGINS, "metrics": rows}])
    mean, points = [(1, 2.5), (4, 2.5)], [(1, 1.0), (4, 4.0)]
    beside = Series("one", "blue", [(1, 0.5), (2, 0.75)], BAND)
    assert figure.panels == [
        Lines("beta", "", [Series("one", "blue", mean)]),
        Lines("Margin of a step's pairs: median, 10% to 90%", "nats", [beside]),
        Lines("Pairs in the right order", "share of pairs", [Series("one", "blue", mean)], percent=True),
        Lines("P(truth) of validation requests", "share of samples", [Series("one", "blue", points, dots=True)], True),
        Lines("Log-probability of chosen answers", "nats", [Series("one", "blue", mean)]),
        Lines("Log-probability of rejected answers", "nats", [Series("one", "blue", mean)]),
    ]
    assert (figure.name, figure.caption) == ("compare", "The runs over optimizer steps")


def test_names_of_splits_and_cases_are_words_of_at_most_sixty_letters():
    names = ("test_seen", "x" * 60, "y" * 61)
    assert [figures.say(name) for name in names] == ["test seen", "x" * 60, f"{'y' * 60} ... (1 more characters)"]
    assert [figures.capital(text) for text in ("", "a b", "A")] == ["", "A b", "A"]


def test_every_question_of_the_balance_has_its_title():
    titles = {"operators": "Operators", "field types": "Types of fields asked for", "value types": "Types of values"}
    titles |= {"words": "Words of a request", "conditions": "Conditions a request", "kinds": "Kinds of request"}
    titles |= {"properties given": "Properties given", "languages": "Languages"}
    titles |= {"properties of the schema": "Properties of a schema", "schema depth": "Levels of a schema"}
    case = {"a": {"training": 1, "tests": 1}}
    for name, title in titles.items():
        assert [panel.title for panel in figures.show_balance({name: case}).panels] == [title]
    whole = figures.show_balance(dict.fromkeys(titles, case))
    assert [panel.title for panel in whole.panels] == [*titles.values()][:6]


def test_compared_runs_share_a_panel_a_measure_and_those_without_one_are_left_out():
    one = {"name": "one", "color": "blue", "margins": MARGINS, "metrics": [{"step": 1, "beta/effective": 0.1}]}
    two = {"name": "two", "color": "green", "margins": [], "metrics": [{"step": 2, "eval_p_truth": 0.5}]}
    figure = figures.show_compared_runs([one, two])
    beta, margin, truth = figure.panels
    assert (beta.title, beta.series) == ("beta", [Series("one", "blue", [(1, 0.1)])])
    assert margin.series == [Series("one", "blue", [(1, 0.5), (2, 0.75)], BAND)] and margin.unit == "nats"
    assert truth.series == [Series("two", "green", [(2, 0.5)], dots=True)] and truth.percent
    assert figure.legend == [("one", "blue"), ("two", "green")]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 1.02, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (-1, 4, ["-1", "0", "1", "2", "3", "4"]),
        (0, 12345, ["0", "2,500", "5,000", "7,500", "10,000"]),
        (3, 3, ["3"]),
    ],
)
def test_ticks_are_the_round_numbers_of_a_range(low, high, ticks):
    assert say_ticks(pick_ticks(low, high)) == ticks


def test_numbers_of_lines_have_a_gap_where_a_series_has_none():
    panel = Lines("Loss", "nats", [Series("a", "blue", [(1, 0.123456), (3, 2.0)]), Series("b", "gray", [(2, 0.5)])])
    table = list_numbers(panel)
    assert (table.title, table.head) == ("Loss, nats", ["step", "a", "b"])
    assert table.rows == [["1", "0.1235", ""], ["2", "", "0.5"], ["3", "2", ""]]
    shares = Lines("Risk", "", [Series("a", "blue", [(0.5, 0.25)])], percent=True, x="answered", shares=True)
    assert (list_numbers(shares).head, list_numbers(shares).rows) == (["answered", "a"], [["50.0%", "25.0%"]])
