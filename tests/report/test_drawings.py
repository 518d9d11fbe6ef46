"""What SVG and PNG draw is what the chart says: places, lengths, order, limits, words."""

import re

import pytest

from schema_student.report.charts import PALETTE, Bar, Bars, Figure, Lines, Series, Stacks
from schema_student.report.plotting import draw_png
from schema_student.report.svg import draw_svg

LINES = Lines(
    "Answers",
    "share",
    [
        Series("valid", "blue", [(0, 0.0), (10, 1.0)], faint=True),
        Series("right", "green", [(0, 0.5), (5, 0.75)], [(0, 0.25, 0.5), (5, 0.5, 1.0)], dots=True),
        Series("one", "gray", [(10, 0.5)]),
    ],
    percent=True,
    from_zero=True,
    across=((0.25, "delta 25%"),),
    ring=(5, 0.75),
)
BARS = Bars(
    "Rates",
    [("valid", [Bar("base", "gray", 0.5, 0.25, 0.75), Bar("SFT", "blue", 1.0)]), ("right", [Bar("SFT", "blue", 0.0)])],
)
STACKS = Stacks(
    "Ranks",
    [
        ("base", [Bar("bad", "rank0", 0.25), Bar("few", "rank2", 0.03125), Bar("good", "rank5", 0.71875)]),
        ("SFT", [Bar("bad", "rank0", 0.0), Bar("few", "rank2", 0.0), Bar("good", "rank5", 1.0)]),
    ],
)


def drawn(pattern, panel):
    return re.findall(pattern, draw_svg(panel))


def test_lines_of_an_svg_go_through_their_points():
    # x: 50 to 348 for steps 0 to 10; y: 176 for 0, 10 for 1.02, the end of a share's axis.
    assert drawn(r'<path d="M([^"]*)" class="(line[^"]*)"', LINES) == [
        ("50.0 176.0L348.0 13.3", "line faint line-blue"),
        ("50.0 94.6L199.0 53.9", "line line-green"),
    ]
    assert drawn(r'<path d="M([^"]*)Z" class="([^"]*)"', LINES) == [
        ("50.0 94.6L199.0 13.3L199.0 94.6L50.0 135.3", "band fill-green")
    ]
    assert drawn(r'<circle cx="(\S*)" cy="(\S*)" r="(\d)" class="([^"]*)"', LINES) == [
        ("50.0", "94.6", "3", "fill-green"),
        ("199.0", "53.9", "3", "fill-green"),
        ("348.0", "94.6", "3", "fill-gray"),
        ("199.0", "53.9", "8", "ring"),
    ]
    assert drawn(r'<path d="([^"]*)" class="level"', LINES) == ["M50.0 135.3L348.0 135.3"]
    said = drawn(r">([^<]+)</text>", LINES)
    assert said == [*"0% 25% 50% 75% 100%".split(), *"0 2 4 6 8 10".split(), "optimizer step", "delta 25%"]


@pytest.mark.parametrize(
    ("values", "from_zero", "bottom", "top"),
    [
        ((2.0, 4.0), False, 1.88, 4.12),  # room of 6% on both sides
        ((2.0, 4.0), True, 0.0, 4.24),
        ((0.1, 4.1), False, 0.0, 4.34),  # as good as from 0
        ((-1.0, 1.0), True, -1.12, 1.12),
        ((5.0, 5.0), False, 4.5, 5.5),
        ((0.0, 0.0), False, 0.0, 1.0),
    ],
)
def test_an_axis_has_room_and_begins_at_zero_where_it_should(values, from_zero, bottom, top):
    panel = Lines("x", "", [Series("a", "blue", [*enumerate(values)])], from_zero=from_zero)
    (path,) = drawn(r'<path d="M([^"]*)" class="line', panel)
    places = [float(point.split()[1]) for point in path.split("L")]
    assert places == pytest.approx([176 - 166 * (value - bottom) / (top - bottom) for value in values], abs=0.06)


def test_bars_of_an_svg_have_their_length_interval_and_number():
    assert drawn(r'<rect x="0" y="(\S*)" width="(\S*)" height="13" class="fill-(\w*)"', BARS) == [
        ("20.0", "134.0", "gray"),
        ("37.0", "268.0", "blue"),
        ("78.0", "0.5", "blue"),  # to be seen at all
    ]
    assert drawn(r'<path d="([^"]*)" class="interval"', BARS) == ["M67.0 26.5L201.0 26.5"]
    numbers = drawn(r'<text x="(\S*)" y="(\S*)" text-anchor="start" class="name">([^<]*)<', BARS)
    assert numbers == [
        ("0.0", "15.0", "valid"),
        ("206.0", "31.0", "50.0%"),  # beyond the interval
        ("273.0", "48.0", "100.0%"),
        ("0.0", "73.0", "right"),
        ("5.0", "89.0", "0.0%"),
    ]
    assert drawn(r'viewBox="0 0 360 (\d+)"', BARS) == [str(24 + 2 * 17 + 24 + 17 + 22)]


def test_parts_of_an_svg_s_stack_follow_each_other_and_small_ones_have_no_number():
    assert drawn(r'<rect x="(\S*)" y="(\S*)" width="(\S*)" height="22" class="part fill-(\w*)"', STACKS) == [
        ("0.0", "20", "90.0", "rank0"),
        ("90.0", "20", "11.2", "rank2"),
        ("101.2", "20", "258.8", "rank5"),
        ("0.0", "68", "360.0", "rank5"),
    ]
    assert drawn(r'text-anchor="middle" class="on-(\w*)">([^<]*)<', STACKS) == [
        ("rank0", "25%"),
        ("rank5", "72%"),
        ("rank5", "100%"),
    ]


def test_a_drawing_of_lines_is_this_letter_for_letter():
    series = Series("s", "blue", [(0, 0.0), (4, 1.0)], [(0, 0.0, 0.5), (4, 0.5, 1.0)])
    panel = Lines("A & b", "nats", [series], across=((0.5, "half"),), ring=(4, 1.0))
    grid = {176.0: "0.00", 136.8: "0.25", 97.7: "0.50", 58.5: "0.75", 19.4: "1.00"}  # 176 - 166 value / 1.06
    steps = {50.0: 0, 124.5: 1, 199.0: 2, 273.5: 3, 342.0: 4}  # the last one within the frame
    assert draw_svg(panel).replace("><", ">\n<").split("\n") == [
        '<svg viewBox="0 0 360 210" role="img" aria-label="A &amp; b; the numbers follow as a table">',
        *[
            line
            for y, said in grid.items()
            for line in (
                f'<path d="M50.0 {y}L348.0 {y}" class="grid"/>',
                f'<text x="44.0" y="{y + 4:.1f}" text-anchor="end">{said}</text>',
            )
        ],
        *[f'<text x="{x}" y="191.0" text-anchor="middle">{step}</text>' for x, step in steps.items()],
        '<text x="199.0" y="206.0" text-anchor="middle">optimizer step</text>',
        '<path d="M50.0 97.7L348.0 97.7" class="level"/>',
        '<text x="348.0" y="93.7" text-anchor="end">half</text>',
        '<path d="M50.0 97.7L348.0 19.4L348.0 97.7L50.0 176.0Z" class="band fill-blue"/>',
        '<path d="M50.0 176.0L348.0 19.4" class="line line-blue"/>',
        '<circle cx="348.0" cy="19.4" r="8" class="ring"/>',
        "</svg>",
    ]


def test_a_drawing_of_bars_is_this_letter_for_letter():
    panel = Bars("B", [("a" * 55, [Bar("x", "gray", 0.5, 0.25, 0.75)]), ("b" * 54, [])])
    ticks = [(0.0, "start", "0%"), (67.0, "middle", "25%"), (134.0, "middle", "50%"), (201.0, "middle", "75%")]
    assert draw_svg(panel).replace("><", ">\n<").split("\n") == [
        '<svg viewBox="0 0 360 87" role="img" aria-label="B; the numbers follow as a table">',
        *[
            line
            for x, anchor, said in [*ticks, (268.0, "middle", "100%")]
            for line in (
                f'<path d="M{x} 4.0L{x} 69.0" class="grid"/>',
                f'<text x="{x}" y="83.0" text-anchor="{anchor}">{said}</text>',
            )
        ],
        f'<text x="0.0" y="15.0" text-anchor="start" class="name">{"a" * 51}...</text>',  # 360 / 6.6 letters
        '<rect x="0" y="20.0" width="134.0" height="13" class="fill-gray"/>',
        '<path d="M67.0 26.5L201.0 26.5" class="interval"/>',
        '<text x="206.0" y="31.0" text-anchor="start" class="name">50.0%</text>',
        f'<text x="0.0" y="56.0" text-anchor="start" class="name">{"b" * 54}</text>',
        "</svg>",
    ]


def test_a_drawing_of_stacks_is_this_letter_for_letter():
    panel = Stacks("C", [("base", [Bar("x", "rank0", 0.09), Bar("y", "rank5", 0.91)]), ("b", [Bar("x", "rank0", 1.0)])])
    assert draw_svg(panel).replace("><", ">\n<").split("\n") == [
        '<svg viewBox="0 0 360 102" role="img" aria-label="C; the numbers follow as a table">',
        '<text x="0.0" y="15.0" text-anchor="start" class="name">base</text>',
        '<rect x="0.0" y="20" width="32.4" height="22" class="part fill-rank0"/>',
        '<rect x="32.4" y="20" width="327.6" height="22" class="part fill-rank5"/>',
        '<text x="196.2" y="35.0" text-anchor="middle" class="on-rank5">91%</text>',
        '<text x="0.0" y="63.0" text-anchor="start" class="name">b</text>',
        '<rect x="0.0" y="68" width="360.0" height="22" class="part fill-rank0"/>',
        '<text x="180.0" y="83.0" text-anchor="middle" class="on-rank0">100%</text>',
        "</svg>",
    ]


@pytest.fixture
def axes_of(monkeypatch):
    """What matplotlib holds of a figure when its PNG is written: its axes and its legend's words and colors."""
    from matplotlib import pyplot

    closed = []
    monkeypatch.setattr(pyplot, "close", closed.append)

    def draw(*panels, legend=()):
        assert draw_png(Figure("f", "caption", panels, legend)).startswith(b"\x89PNG")
        return closed[-1]

    yield draw
    monkeypatch.undo()
    for figure in closed:
        pyplot.close(figure)


def words_of(ticks):
    return [tick.get_text() for tick in ticks]


def test_lines_of_a_png_are_the_series(axes_of):
    (axes,) = axes_of(LINES).axes
    found = {line.get_label(): line for line in axes.get_lines()}
    assert list(found) == ["valid", "right", "one", "delta 25%", "chosen"]
    points = {name: list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for name, line in found.items()}
    assert {name: points[name] for name in ("valid", "right", "one", "chosen")} == {
        **{each.name: each.points for each in LINES.series},
        "chosen": [(5, 0.75)],
    }
    assert set(found["delta 25%"].get_ydata()) == {0.25}
    assert [found[each.name].get_color() for each in LINES.series] == [PALETTE[each.color][0] for each in LINES.series]
    assert found["valid"].get_alpha() == 0.3 and found["right"].get_marker() == "o" != found["valid"].get_marker()
    (band,) = axes.collections
    corners = {tuple(map(float, corner)) for corner in band.get_paths()[0].vertices}
    assert corners == {(0, 0.25), (0, 0.5), (5, 0.5), (5, 1.0)}
    assert axes.get_ylim()[0] == 0 and axes.get_title("left") == "Answers"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer step", "share")
    assert {"0%", "20%", "100%"} <= set(words_of(axes.get_yticklabels()))


def test_bars_of_a_png_stand_in_their_order_with_interval_and_number(axes_of):
    (axes,) = axes_of(BARS).axes
    bars = [(round(bar.get_y() + bar.get_height() / 2, 9), bar.get_width()) for bar in axes.patches]
    assert bars == [(0, 0.5), (1, 1.0), (2.8, 0.0)]
    (interval,) = axes.get_lines()
    assert ([*interval.get_xdata()], [*interval.get_ydata()]) == ([0.25, 0.75], [0.0, 0.0])
    assert [(text.get_text(), *text.get_position()) for text in axes.texts] == [
        ("50.0%", pytest.approx(0.765), 0),
        ("100.0%", pytest.approx(1.015), 1),
        ("0.0%", pytest.approx(0.015), 2.8),
    ]
    assert [*axes.get_yticks()] == [0.5, 2.8] and words_of(axes.get_yticklabels()) == ["valid", "right"]
    assert axes.get_xlim() == (0, 1.16) and axes.yaxis_inverted()
    assert words_of(axes.get_xticklabels()) == ["0%", "25%", "50%", "75%", "100%"]


def test_stacks_of_a_png_fill_the_whole(axes_of):
    (axes,) = axes_of(STACKS).axes
    found = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert found == [(0, 0.25), (0.25, 0.03125), (0.28125, 0.71875), (0, 0), (0, 0), (0, 1)]
    assert [(text.get_text(), *text.get_position()) for text in axes.texts] == [
        ("25%", 0.125, 0),
        ("72%", 0.640625, 0),
        ("100%", 0.5, 1),
    ]
    assert axes.get_xlim() == (0, 1) and words_of(axes.get_yticklabels()) == ["base", "SFT"] and axes.yaxis_inverted()


def test_panels_stand_three_in_a_row_under_one_legend(axes_of):
    figure = axes_of(LINES, BARS, STACKS, BARS, legend=[("base", "gray"), ("SFT", "blue")])
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["Answers", "Rates", "Ranks", "Rates"] and len(figure.axes) == 6
    (legend,) = figure.legends
    assert words_of(legend.get_texts()) == ["base", "SFT"]
    from matplotlib.colors import to_hex

    assert [to_hex(patch.get_facecolor()) for patch in legend.get_patches()] == [
        PALETTE[c][0] for c in ("gray", "blue")
    ]


def test_a_png_has_the_looks_of_the_page(axes_of):
    from matplotlib.colors import to_hex

    ink, quiet = "#1c2530", "#68737f"
    figure = axes_of(LINES, BARS, STACKS, STACKS, legend=[(str(i), "gray") for i in range(5)])
    lines, bars, stacks = figure.axes[:3]
    assert [*figure.get_size_inches()] == pytest.approx([12.6, 0.7 + 2 * 3.2]) and figure.get_dpi() == 100
    assert [*axes_of(BARS).get_size_inches()] == pytest.approx([11, 0.7 + 1.0 + 0.16 * 2 + 0.2 * 3])
    assert [*axes_of(STACKS).get_size_inches()] == pytest.approx([11, 0.7 + 1.2 + 0.5 * 2])
    (legend,) = figure.legends
    assert legend._ncols == 4 and not legend.get_frame_on() and {each.get_fontsize() for each in legend.texts} == {9}
    title = lines._left_title
    assert (title.get_fontsize(), title.get_fontweight(), title.get_fontfamily()) == (11, "bold", ["DejaVu Sans"])
    assert to_hex(title.get_color()) == ink and not title.get_parse_math()
    assert [side for side, spine in lines.spines.items() if spine.get_visible()] == ["left", "bottom"]
    assert to_hex(lines.spines["left"].get_edgecolor()) == "#c3cad2" and lines.get_axisbelow() is True
    assert {to_hex(each.get_color()) for each in lines.get_xgridlines()} == {"#eaeef2"}
    labels = [lines.xaxis.label, lines.get_xticklabels()[0], lines.get_yticklabels()[0]]
    assert {(each.get_fontsize(), to_hex(each.get_color())) for each in labels} == {(10, quiet)}
    drawn = {line.get_label(): line for line in lines.get_lines()}
    widths = {name: (line.get_linewidth(), line.get_markersize()) for name, line in drawn.items()}
    assert widths == {"valid": (0.9, 4), "right": (1.8, 4), "one": (1.8, 4), "delta 25%": (0.9, 6), "chosen": (1.8, 11)}
    assert drawn["chosen"].get_fillstyle() == "none" and drawn["chosen"].get_marker() == "o"
    assert {to_hex(drawn[name].get_color()) for name in ("delta 25%", "chosen")} == {ink}
    assert drawn["delta 25%"].is_dashed() and drawn["delta 25%"]._unscaled_dash_pattern == (0, (4, 3))
    (band,) = lines.collections
    assert (band.get_alpha(), to_hex(band.get_facecolor()[0]), band.get_linewidth()[0]) == (0.2, PALETTE["green"][0], 0)
    own = lines.get_legend()
    assert not own.get_frame_on() and {each.get_fontsize() for each in own.texts} == {9}
    assert lines.get_xlim() == pytest.approx((-0.12, 10.12))
    assert [to_hex(bar.get_facecolor()) for bar in bars.patches] == [PALETTE[c][0] for c in ("gray", "blue", "blue")]
    assert {(round(bar.get_height(), 9), to_hex(bars.get_lines()[0].get_color())) for bar in bars.patches} == {
        (0.8, ink)
    }
    assert bars.get_lines()[0].get_linewidth() == 1.1 and bars.get_lines()[0].get_solid_capstyle() == "butt"
    assert {(text.get_fontsize(), text.get_va()) for text in bars.texts} == {(8, "center")}
    assert {to_hex(each.get_color()) for each in (*bars.get_yticklabels(), *stacks.get_yticklabels())} == {ink}
    assert not any(each.get_visible() for each in bars.get_ygridlines()) and bars.get_xgridlines()[0].get_visible()
    assert [*bars.get_xticks()] == [0, 0.25, 0.5, 0.75, 1] and {
        t.tick1line.get_markersize() for t in bars.yaxis.majorTicks
    } == {0}
    assert {
        (round(bar.get_height(), 9), bar.get_linewidth(), to_hex(bar.get_edgecolor())) for bar in stacks.patches
    } == {(0.62, 0.8, "#ffffff")}
    assert {(text.get_fontsize(), text.get_ha(), text.get_va()) for text in stacks.texts} == {(9, "center", "center")}
    inks = [[to_hex(text.get_color()) for text in stacks.texts], [text.get_text() for text in stacks.texts]]
    assert inks == [["#ffffff"] * 3, ["25%", "72%", "100%"]]
    light = Stacks("x", [("a", [Bar("m", f"rank{i}", 0.036 if i else 0.82) for i in (1, 0, 2, 3, 4, 5)])])
    told = [to_hex(text.get_color()) for text in axes_of(light).axes[0].texts]
    assert told == ["#ffffff", "#ffffff", ink, ink, ink, "#ffffff"]


def test_a_panel_of_shares_has_percents_on_both_axes(axes_of):
    panel = Lines("x", "", [Series("a", "blue", [(0.0, 0.5), (1.0, 0.7)])], percent=True, x="answered", shares=True)
    figure = axes_of(panel)
    (axes,) = figure.axes
    assert "40%" in words_of(axes.get_xticklabels()) and axes.get_xlabel() == "answered"
    assert "60.0%" in words_of(axes.get_yticklabels())
