"""Degenerate answers are told from wrong ones, and what is right is never called so."""

import pytest

from schema_student.core.records import EvaluationRow
from schema_student.evaluation.degeneration import find_degeneration
from schema_student.evaluation.rates import count_degenerate

LIST = {"items": [1, 2, 3]}


def row(text, rank=3, target=LIST, **more):
    known = {"schema_id": "s", "query": "q", "split": "test_seen", "current_date": "2026-01-01"}
    return EvaluationRow(**known, raw_output=text, rank=rank, target=target, **more)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ('{"items":[' + "1, " * 60, "repeating"),
        ("no no no no no no no no no no no no no no ", "repeating"),
        ("abcde" * 8, "repeating"),
        ("[1,\n 2],\n" * 5, "repeating"),  # over lines
        ("abcdefghijk" * 4, None),  # four times only
        ('{"items":[1000000000,2]}', None),  # a run of zeros is a number
        ('{"items":[1,2]}', None),
        ("I would say that this request asks for the three items that were named before, so the answer would be "
         "those: one, two and then three, as far as I can tell from here.", "far longer than the target"),
    ],
)  # fmt: skip
def test_a_degenerate_answer_has_a_kind(text, kind):
    assert find_degeneration(row(text)) == kind


@pytest.mark.parametrize(
    ("expected", "longest"),
    [(17, 117), (49, 149), (50, 150), (60, 180)],  # characters of the target: 100 more, from 50 on three times as many
)
def test_far_longer_is_three_times_the_target_and_by_more_than_100_characters(expected, longest):
    text = " ".join(map(str, range(100, 200)))
    target = "x" * (expected - 2)  # with its quotes
    assert find_degeneration(row(text[:longest], target=target)) is None
    assert find_degeneration(row(text[: longest + 1], target=target)) == "far longer than the target"


def test_what_is_right_or_was_not_answered_is_not_degenerate():
    assert find_degeneration(row('{"items":[' + "1," * 60 + "1]}", rank=5)) is None
    assert find_degeneration(row("", rank=0, too_long=True)) is None
    assert find_degeneration(row("x " * 3 + "and much else" * 1, target=None)) is None


def test_degenerate_answers_are_counted_by_kind():
    counted = count_degenerate([row(""), row("ab" * 40), row('{"items":[]}'), row("", rank=0)])
    assert counted == {"empty": 2, "repeating": 1, "far longer than the target": 0}
