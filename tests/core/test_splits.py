"""Splits have their names, and some rows of one are taken from all over it."""

import pytest

from schema_student.core.splits import SPLITS, TESTS, TRAINED, VALIDATION, read_split, spread


def test_splits_are_named():
    assert SPLITS == ("train", "validation", "alignment", "test_seen", "test_unseen")
    assert (TRAINED, TESTS, VALIDATION) == (("train", "validation"), ("test_seen", "test_unseen"), "validation")


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (" Train , training", "train"),
        ("val,Validation,dev,development,eval,evaluation", "validation"),
        ("test,TESTING,test_seen", "test"),
        ("holdout,a train,,unknown", None),
    ],
)
def test_words_of_others_mean_a_split(words, split):
    assert {read_split(word) for word in words.split(",")} == {split}


@pytest.mark.parametrize(
    ("count", "taken"), [(0, []), (1, [0]), (3, [0, 2, 4]), (4, [0, 1, 3, 5]), (7, [*range(7)]), (9, [*range(7)])]
)
def test_rows_are_taken_evenly(count, taken):
    assert spread(range(7), count) == taken and spread([], count) == []
