"""In which forms a request gives a value: numbers in words and other units, months, relative days, abbreviations."""

from __future__ import annotations

import pytest

from schema_student.data.grounding import ignored_parts, ungrounded_values

NUMBERS = (
    "zero 0 two 2 three 3 four 4 five 5 six 6 seven 7 eight 8 nine 9 ten 10 eleven 11 twelve 12 thirteen 13 "
    "fourteen 14 fifteen 15 sixteen 16 eighteen 18 twenty 20 thirty 30 forty 40 fifty 50 sixty 60 seventy 70 "
    "eighty 80 ninety 90 hundred 100 thousand 1000 million 1000000 billion 1000000000 dozen 12 half 0.5 "
    "quarter 0.25 double 2 twice 2 triple 3 pair 2 couple 2 once 1 second 2 third 3 fourth 4 fifth 5 decade 10 "
    "century 100 deux 2 trois 3 quatre 4 cinq 5 sept 7 huit 8 neuf 9 dix 10 douze 12 vingt 20 cent 100 mille "
    "1000 demi 0.5 pi 3.14159 noon 12"
).split()
MONTHS = (
    "January 1 february 2 March 3 april 4 May 5 june 6 July 7 august 8 september 9 october 10 nov 11 "
    "december 12 janvier 1 f\u00e9vrier 2 mars 3 avril 4 mai 5 juin 6 juillet 7 ao\u00fbt 8 septembre 9 "
    "octobre 10 novembre 11 d\u00e9cembre 12"
).split()
RELATIVE = (
    "today tomorrow yesterday tonight now current next last this past previous coming upcoming ago since week "
    "month year monday tuesday wednesday thursday friday saturday sunday weekend spring summer autumn fall "
    "winter christmas easter quarter aujourd'hui demain hier prochain prochaine dernier semaine mois "
    "ann\u00e9e depuis"
).split()


def given(request, values, schema=None):
    """Those of the values that a request gives."""
    return {
        value for value in values if not ungrounded_values(request, {"n": value}, {"properties": {"n": schema or {}}})
    }


@pytest.mark.parametrize(("word", "number"), [*zip(NUMBERS[::2], NUMBERS[1::2], strict=True)])
def test_a_number_is_given_in_words(word, number):
    value = float(number)
    assert given(f"some {word} of them", [value]) == {value}
    assert given(f"some {word}ish of them", [value]) == set()


@pytest.mark.parametrize(
    ("scale", "times"),
    [
        *(("k", 10**3), ("m", 10**6), ("b", 10**9), ("thousand", 10**3), ("million", 10**6), ("billion", 10**9)),
        *(("hundred", 100), ("mille", 10**3)),
    ],
)
def test_a_number_is_given_by_its_scale_and_so_in_another_unit(scale, times):
    for written in (f"11 {scale}", f"11{scale}"):
        assert given(f"{written} a day", [11 * times * 365, 11 * times * 366]) == {11 * times * 365}


def test_a_number_gives_itself_in_each_unit_and_no_other():
    units = {11 * factor for factor in (1, 10, 100, 1000, 60, 3600, 24, 7, 12, 30, 52, 365, 10**6)}
    assert given("11 of them", [*range(1, 700), *units, *(n + 1 for n in units if n < 10**6)]) == units
    assert given("1100 of them", [11, 11.5, 110, 1100 / 24, 1100 / 7]) == {11, 110, 1100 / 24, 1100 / 7}


@pytest.mark.parametrize(
    ("request_text", "numbers"),
    [
        ("at 11%", {11, 0.11}),
        ("at 11 percent", {11, 0.11}),
        ("at 11 pct", {11, 0.11}),
        ("11 pour cent", {11, 0.11, 100}),
        ("11 / 16 of it", {11, 16, 11 / 16}),
        ("(11,13)", {11, 13}),
        ("11,000 of it", {11_000, 11}),
        ("-11.5 or .5", {-11.5, 11.5, 0.5}),
        ("1.1e3", {1100, 11, 1.1}),
        ("thirty five", {30, 5, 35}),
        ("five hundred", {5, 100, 500}),
        ("sixty times", {60}),
        ("more than 16", {16, 15, 17}),
        ("plus de 16", {16, 15, 17}),
        ("16 dollars", {16}),
        ("one of them", {1}),
        ("the best", {1}),
        ("la plus haute", set()),
        ("every week", {1, 7, 12, 14, 28, 30, 31, 52, 365}),
        ("tous les mois", {1, 7, 12, 14, 28, 30, 31, 52, 365}),
        ("at 11 pm", {11, 23}),
        ("at 1:30 p.m.", {1, 30, 13}),
        ("at 11 am", {11}),
        ("room x11", {11}),
    ],
)
def test_numbers_are_read_in_these_forms(request_text, numbers):
    tried = {11, 0.11, 16, 11 / 16, 13, 11_000, -11.5, 11.5, 0.5, 1100, 1.1, 30, 5, 35, 100, 500, 60, 15, 17, 1, 7, 12}
    tried |= {14, 28, 31, 52, 365, 23, 105}
    found = given(request_text, tried)
    assert numbers <= found
    in_other_units = {n for n in found - numbers if any(n in given(f"{m:g}", [n]) for m in numbers)}
    assert found - numbers == in_other_units


@pytest.mark.parametrize(("name", "number"), [*zip(MONTHS[::2], MONTHS[1::2], strict=True)])
def test_a_date_is_given_by_its_day_and_the_name_of_its_month_or_by_month_and_year_of_its_first_day(name, number):
    dates = [f"2024-{month:02}-{day}" for month in range(1, 13) for day in ("01", "21", "22")]
    assert given(f"on the 21st of {name} 2024", dates) >= {f"2024-{int(number):02}-21"}
    assert given(f"on 21 {name}", dates) == {f"2024-{int(number):02}-21"}
    assert given(f"in {name}", dates) == set()


@pytest.mark.parametrize(
    ("request_text", "dates"),
    [
        ("on 2024-05-21", {"2024-05-21", "2024-01-01", "2024-12-31"}),
        ("on 20240521", {"2024-05-21"}),
        ("on 21/5", {"2024-05-21"}),
        ("in 2024", {"2024-01-01", "2024-12-31"}),
        ("in 2023", set()),
        ("the 21st", set()),
        ("May 2024", {"2024-05-21", "2024-05-01", "2024-01-01", "2024-12-31"}),
    ],
)
def test_a_date_is_given_in_figures_or_as_an_end_of_its_year(request_text, dates):
    tried = ["2024-05-21", "2024-05-01", "2024-06-21", "2024-01-01", "2024-12-31"]
    assert given(request_text, tried) == dates
    assert given("on 21 5", ["21/5/2024", "3/4/2024"]) == {"21/5/2024"}


@pytest.mark.parametrize("word", RELATIVE)
def test_a_date_may_be_reckoned_from_today(word):
    assert given(f"all of {word} please", ["2031-05-07"]) == {"2031-05-07"}


@pytest.mark.parametrize(
    ("request_text", "text", "is_given"),
    [
        ("in New York", "NY", True),
        ("in Rome", "NY", False),
        ("12 kilometers", "km", True),
        ("12 miles", "km", False),
        *((f"in {word}s", code, True) for word, code in [("dollar", "USD"), ("euro", "EUR"), ("pound", "GBP")]),
        *((f"in {word}", code, True) for word, code in [("yen", "JPY"), ("rupees", "INR"), ("yuan", "CNY")]),
        ("in francs", "USD", False),
        ("an apple", "app", True),
        ("a grape", "app", False),
        ("a pineapple tree", "apple", True),
        ("the tall tower of Pisa", "tower, bridge", True),
        ("the tall tower of Pisa", "a bridge to the tower in Rome", False),
        ("walked", "walking", True),
        ("walk-in", "walruses", False),
        ("hotels", "hotel rooms", True),
        ("a", "the of", True),
        ("room 7", "room 8", True),
        ("ward 7", "bed 8", False),
    ],
)
def test_a_text_is_given_by_half_of_its_words_their_beginnings_or_initials(request_text, text, is_given):
    assert bool(given(request_text, [text])) is is_given


@pytest.mark.parametrize(
    ("part", "value", "is_given"),
    [
        ({"const": "x"}, "x", True),
        ({"default": "x"}, "x", True),
        ({"default": "y"}, "x", False),
        ({"enum": ["x"]}, "x", True),
        ({"enum": ["x", "y"]}, "x", False),
        *(
            ({"description": words}, "metric", True)
            for words in ("Defaults to metric.", "Default is 'metric'.", "(default: metric)", "default value: metric")
        ),
        ({"description": "default = 7.0 %"}, 7.0, True),
        ({"description": "Default is 7."}, 7.0, True),
        ({"description": "Default is 8."}, 7.0, False),
        ({"description": "It has no default; metric."}, "metric", False),
        ({}, True, True),
        ({}, None, True),
        ({}, "", True),
    ],
)
def test_a_schema_gives_constants_and_defaults_also_in_words(part, value, is_given):
    assert bool(given("nothing", [value], part)) is is_given


@pytest.mark.parametrize(
    ("request_text", "answer", "ignored"),
    [
        ("below 50", {"n": 49}, []),
        ("above 50", {"n": 51}, []),
        ("at 50", {"n": 49}, ["50"]),
        ("at 9 pm", {"n": 21}, []),
        ("at 9 am", {"n": 21}, ["9"]),
        ("1,900 of it", {"n": 1900}, []),
        ("1,900 of it", {"n": 1901}, ["1,900"]),
        ("5 x 9", {"n": 5}, ["9"]),
        ("x^9, 2-9, 9/4", {}, []),
        ("for 'Ann' and \"Bo\" and \u201cCy\u201d of the club", {"a": "Bo"}, ["Ann", "Cy"]),
        ("for 'Ann' of the club", {"a": "EUR"}, []),
        ("'Ann Lee' is", {"a": 1}, []),
    ],
)
def test_numbers_and_quoted_words_that_an_answer_does_not_take_up_are_listed(request_text, answer, ignored):
    assert ignored_parts(request_text, answer, {}) == ignored
