"""Splits have their names, and some rows of one are taken from all over it."""

from types import SimpleNamespace

import pytest

from schema_student.core.splits import SPLITS, TESTS, TRAINED, VALIDATION, read_split, spread, take_of_splits


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


def test_a_part_is_so_many_of_each_split_in_their_order_and_said(capsys):
    rows = [SimpleNamespace(split=split, n=n) for n, split in enumerate(["train", "validation", "train", "train"])]
    assert [row.n for row in take_of_splits(rows, 2)] == [0, 1, 2]
    assert capsys.readouterr().out == "  train: 2 of 3, by --max-samples\n"
    assert take_of_splits(rows, 0) == take_of_splits(rows, 3) == rows and capsys.readouterr().out == ""
