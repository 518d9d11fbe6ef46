"""What is noise in a text, and what decides a number, a date or a formula in it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.schema.free_text import find_language, names_what_is_missing, same_request, standardize


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("New York,NY", "new york, ny"),
        ("e-mail", "email"),
        ("state-of-the-art", "state of the art"),
        ("snake_case", "snakecase"),
        ("Covid-19", "covid 19"),
        ("Dr. Smith", "dr smith"),
        ("5 km.", "5km"),
        ("x**2", "x^2"),
        ("3x^2 + 2x", "3x^2+2x"),
        ("1,000", "1000"),
        ("1, 2", "1,2"),
        ("10 - 20", "10-20"),
        ("2024-01-11", "2024/01/11"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00+00:00"),
    ],
)
def test_texts_that_differ_by_noise_alone_are_the_same(one, other):
    assert standardize(one) == standardize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.5", "15"),
        ("-5", "5"),
        ("temp -5", "temp 5"),
        ("(-5, 3)", "(5, 3)"),
        ("x^2", "x*2"),
        ("x-5", "x+5"),
        ("a*b", "a/b"),
        ("f(x) = x^2 in m", "f(x) = x*2 in m"),
        ("1/11/2024", "11/1/2024"),
        ("1 2", "12"),
        ("1,5", "15"),
        ("10-20", "1020"),
        ("1/2 cup", "12 cup"),
        ("1e-5", "1e5"),
        ("v1.5", "v15"),
    ],
)
def test_signs_points_and_orders_count_in_numbers_dates_and_formulas(one, other):
    assert standardize(one) != standardize(other)


NUMBERS = st.decimals(-9999, 9999, places=2).map(str) | st.integers(-(10**6), 10**6).map(str)


@given(NUMBERS, NUMBERS, st.sampled_from(["", "about ", "to ", "(", "x = "]), st.sampled_from(["", " km", "%", ")"]))
def test_texts_of_different_numbers_differ(one, other, before, after):
    same = one == other
    assert (standardize(before + one + after) == standardize(before + other + after)) == same


@given(st.text(" ,./-_*^ab12'+()", max_size=40))
def test_standardizing_keeps_all_letters_and_digits_in_order(text):
    assert re.findall(r"[a-z0-9]", standardize(text)) == re.findall(r"[a-z0-9]", re.sub(r"\\*\\*", "^", text))


def test_the_language_of_texts_is_that_of_more_function_words():
    assert find_language(["no field for", "it"]) == "en" and find_language(["il n'y a pas de champ"]) == "fr"
    assert find_language(["field for la"]) is None  # too few
    assert find_language(["for the la le"]) is None  # as many of both
    assert find_language([]) is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a .5 m", "a.5m"),
        ("3. x", "3x"),
        ("5 . 6", "56"),
        ("12,34", "12,34"),
        ("1,000,000.5", "1000000.5"),
        ("1,000,00", "1,000,00"),
        ("a, b", "ab"),
        ("a_b_1", "ab1"),
        ("1_2", "12"),
        ("2 3", "2 3"),
        ("2 x", "2x"),
        ("it's", 'it"s'),
        ("\u22125 m", "-5m"),
        ("a - 5", "a-5"),
        ("area: x**y and *z", "area:x^yandz"),
        ("sin(x) + 1", "sin(x)+1"),
        ("1.2.3", "1-2-3"),
        ("01.02.2024.", "01-02-2024"),
        ("2024-01-02-03", "2024-01-02-03"),
        ("2024-01-01 00:00:00+00:00", "2024-01-01 00:00:00z"),
        ("2024-01-01T00:00:00.5z", "2024-01-01t00:00:00.5z"),
        ("2024-01-01T00:00:00+01:00", "2024-01-01t00:00:00+01:00"),
        ("from 1" + " " * 18 + "- 2", "from1-2"),
        ("from 1" + " " * 20 + "-" + " " * 20 + "2", "from12"),
    ],
)
def test_a_text_is_written_without_what_says_nothing_in_it(text, plain):
    assert standardize(text) == plain


FIELD_WORDS, OPERATOR_WORDS = (
    "field fields champ champs".split(),
    "operator operators op\u00e9rateur op\u00e9rateurs".split(),
)
COLORS = "red green blue tall wide"


@pytest.mark.parametrize(
    ("reason", "expected", "request_text", "named"),
    [
        *((f"no {word} for x", "no operator for x", "x", False) for word in FIELD_WORDS),
        *((f"no {word} for x", "no field for x", "x", False) for word in OPERATOR_WORDS),
        *((f"no {word} for x", "no champ for x", "x", True) for word in FIELD_WORDS),
        *((f"no {word} for x", "no operator for x", "x", True) for word in OPERATOR_WORDS),
        ("no field or operator for x", "no operator for x", "x", True),
        ("x is missing", "no operator for x", "x", True),
        ("aucun champ pour blason", "no field for crest", "le blason", False),
        ("no field for greater", "no operator for greater", "above 3", False),
        ("no operator for greater", "no operator for greater or_lesser", "above 3", False),
        ("nothing for the Greater_Lesser", "no operator for greater lesser", "above 3", True),
        ("no field for tall", "no field for tall wide", "tall ones", True),
        ("red green", "red green blue", COLORS, False),
        ("red green blue", "red green blue", COLORS, True),
        ("red green", "red green blue tall", COLORS, True),
        ("red", "red green blue tall", COLORS, False),
        ("red green", COLORS, COLORS, False),
        ("red green blue", COLORS, COLORS, True),
        (None, "no field for x", "x", False),
    ],
)
def test_a_reason_names_all_of_few_words_and_half_of_many_and_the_right_kind(reason, expected, request_text, named):
    assert names_what_is_missing(reason, expected, request_text) is named


def test_requests_are_the_same_but_for_spaces_case_and_composition():
    assert same_request(" A  Caf\u00e9\n", "a cafe\u0301") and not same_request("a b", "ab")
