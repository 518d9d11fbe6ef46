"""Charts say their numbers as tables, their ticks apart, and are drawn inert in SVG and PNG."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.report.charts import (
    PALETTE,
    Bar,
    Bars,
    Figure,
    Lines,
    Series,
    Stacks,
    list_numbers,
    pick_ticks,
    say_ticks,
    smooth,
)
from schema_student.report.figures import show_sft
from schema_student.report.plotting import draw_png
from schema_student.report.svg import WIDTH, draw_svg

LOSS = Lines("Loss", "nats", [Series("training", "blue", [(step, 2 / (step + 1)) for step in range(200)], faint=True)])
BARS = Bars("Rates", [("valid", [Bar("base", "gray", 0.5, 0.4, 0.6), Bar("SFT", "blue", 1.0)])])
STACK = Stacks("Ranks", [("base", [Bar("not JSON", "rank0", 0.25), Bar("right", "rank5", 0.75)])])
EVIL = '<script>alert(1)</script> & "quoted"'


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6))
def test_ticks_lie_in_the_range_at_even_steps_and_read_apart(low, span):
    ticks = pick_ticks(low, low + span)
    assert 2 <= len(ticks) <= 6 or span < abs(low) * 1e-9
    assert all(low - span * 1e-6 <= tick <= low + span * 1.000001 for tick in ticks)
    assert len(set(say_ticks(ticks))) == len(ticks) or span < abs(low) * 1e-6


def test_ticks_of_shares_have_the_decimals_that_tell_them_apart():
    assert say_ticks(pick_ticks(0.888, 0.894), percent=True) == ["88.8%", "89.0%", "89.2%", "89.4%"]


def test_numbers_of_many_steps_are_an_even_choice_with_the_last_and_all_of_the_few():
    held_out = Series("validation", "green", [(3, 1.0), (199, 0.5)])
    table = list_numbers(Lines("Loss", "nats", [*LOSS.series, held_out]))
    steps = [int(row[0]) for row in table.rows]
    assert len(steps) <= 28 and {0, 3, 199} <= set(steps) and table.head == ["step", "training", "validation"]
    assert table.rows[-1] == ["199", "0.01", "0.5"]


def test_numbers_of_bars_have_their_intervals():
    assert list_numbers(BARS).rows == [["valid", "50.0% (40.0 to 60.0)", "100.0%"]]
    assert list_numbers(STACK).rows == [["base", "25.0%", "75.0%"]]


@pytest.mark.parametrize("panel", [LOSS, BARS, STACK], ids=["lines", "bars", "stacks"])
def test_a_drawing_is_whole_and_keeps_within_its_frame(panel):
    drawn = ElementTree.fromstring(draw_svg(panel))
    height = float(drawn.get("viewBox").split()[3])
    for text in drawn.iter("text"):
        assert 0 <= float(text.get("x")) <= WIDTH and 0 < float(text.get("y")) <= height
    for path in drawn.iter("path"):
        numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", path.get("d"))]
        assert all(0 <= x <= WIDTH for x in numbers[::2]) and all(0 <= y <= height for y in numbers[1::2])
    assert draw_png(Figure("one", "caption", (panel,))).startswith(b"\x89PNG")


def test_a_higher_value_is_drawn_higher_and_a_later_step_further_right():
    (path,) = re.findall(
        r'<path d="M([^"]*)" class="line', draw_svg(Lines("x", "", [Series("x", "blue", [(0, 1), (10, 3)])]))
    )
    (x1, y1), (x2, y2) = (map(float, point.split()) for point in path.split("L"))
    assert x1 < x2 and y1 > y2


def test_bars_are_as_long_as_their_shares():
    half, whole = (float(width) for width in re.findall(r'<rect x="0" y="[^"]*" width="([^"]*)"', draw_svg(BARS)))
    assert whole == pytest.approx(2 * half)


def test_names_in_a_drawing_are_text():
    for panel in (Bars(EVIL, [(EVIL, [Bar(EVIL, "blue", 0.5)])]), Stacks(EVIL, [(EVIL, [Bar(EVIL, "rank0", 1.0)])])):
        assert "<script" not in draw_svg(panel)
        ElementTree.fromstring(draw_svg(panel))
    draw_png(Figure("evil", EVIL, (Bars("a $\\frac$ b", [("$x$", [Bar("a$b$", "blue", 0.5)])]),)))


def test_one_step_and_no_step_are_drawn_too():
    for points in ([], [(5, 0.5)], [(5, 0.5), (6, 0.5)]):
        ElementTree.fromstring(draw_svg(Lines("x", "", [Series("x", "blue", points)], percent=True)))


def test_smoothing_keeps_a_level_and_takes_noise_away():
    level = smooth([(step, 2.0) for step in range(50)])
    assert [value for _, value in level] == pytest.approx([2.0] * 50)
    noisy = smooth([(step, float(step % 2)) for step in range(400)])
    assert all(0.4 < value < 0.6 for _, value in noisy[20:-20])


def brightness(color):
    """Relative luminance (WCAG)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("name", ["gray", "blue", "vermillion", "green"])
def test_lines_stand_out_from_the_page_in_light_and_dark(name):
    for color, page in zip(PALETTE[name], ("#ffffff", "#14181d"), strict=True):
        lighter, darker = sorted((brightness(color), brightness(page)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_the_curve_of_sft_shows_what_comes_of_validation_requests_where_they_were_answered():
    shares = {"eval_valid": 0.9, "eval_as_asked": 0.7, "eval_answers": 10}
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4, "eval_loss": 0.6}]
    assert [panel.title for panel in show_sft(rows).panels] == ["Loss"]
    panel = show_sft([*rows, {"step": 2, **shares}]).panels[1]
    assert panel.title == "Answers to validation requests" and panel.percent
    assert {series.name: series.points for series in panel.series} == {
        "valid": [(2, 0.9)],
        "valid and as asked": [(2, 0.7)],
    }
