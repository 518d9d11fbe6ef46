"""Requests that repeat another, nearly or exactly, or that tests and training would share, are seen as such."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.data.dedup import SHORTEST, RequestIndex, jaccard, normalized, word_pairs

LONG = (
    "Show me all the orders of the last year that were shipped to Oslo or to Bergen by express "
    "and cost more than 250 crowns"
)
WORDS = st.lists(st.sampled_from(["films", "of", "2010", "by", "Ada", "red", "not"]), min_size=1, max_size=25)
REQUESTS = st.one_of(st.text(min_size=1), WORDS.map(" ".join))


def known(*requests, similarity=0.8, words=13):
    requests_known = RequestIndex(similarity, words)
    for query, split in requests:
        requests_known.add(query, split)
    return requests_known


def kind_of(requests_known, query, split="train", **facts):
    problem = requests_known.find_problem(query, split, **facts)
    return problem and problem[0]


@pytest.mark.parametrize("query", ["Films of 2010?", " films  of 2010 ", "FILMS OF 2010!"])
def test_case_spaces_and_the_last_mark_do_not_make_another_request(query):
    assert kind_of(known(("films of 2010", "train"), similarity=0.0, words=0), query) == "duplicate"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (LONG.replace("250", "300"), "near_duplicate"),  # one word of 24
        (LONG.replace("Show me", "Please show me"), "near_duplicate"),
        (LONG.replace("Oslo or to Bergen", "Paris").replace("250", "300"), None),
        ("films of 2011", None),  # one word of three, and a value
    ],
)
def test_nearly_the_same_words_are_a_repetition_in_long_requests_only(query, found):
    assert kind_of(known((LONG, "train"), ("films of 2010", "train")), query) == found


def test_the_threshold_decides_and_zero_lets_all_pass():
    other = LONG.replace("Oslo or to Bergen", "Paris").replace("250", "300")
    assert 0.6 < jaccard(word_pairs(LONG), word_pairs(other)) < 0.8
    assert kind_of(known((LONG, "train"), similarity=0.6), other) == "near_duplicate"
    assert kind_of(known((LONG, "train"), similarity=0.0), LONG.replace("250", "300")) is None


RUN = "orders of the last year that were shipped to Oslo or to Bergen"  # 13 words


@pytest.mark.parametrize(("before", "now"), [("train", "test_seen"), ("test_unseen", "alignment")])
def test_thirteen_words_in_a_row_are_not_shared_by_training_and_tests(before, now):
    requests = known((f"I would like to see the {RUN}", before))
    query = f"{RUN}, and of them just those that nobody has paid until now, please"
    problem = requests.find_problem(query, now)
    assert problem == ("test_overlap", f"training and tests would share the words: {RUN.casefold()}")
    assert kind_of(requests, query, before) is None  # the same side may
    assert kind_of(requests, query.replace("Oslo", "Bonn"), now) is None  # twelve words are no overlap
    assert kind_of(known((RUN, before), words=0), query, now) is None


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_a_short_request_overlaps_as_a_whole(first, second):
    short = "are there any records where there is frost"
    assert len(short.split()) == SHORTEST
    pair = [(short, "test_seen"), (f"{short}, then keep those that come from the upper station", "train")]
    assert kind_of(known(pair[first]), *pair[second]) == "test_overlap"
    assert kind_of(known(("is there frost", "test_seen")), "where is there frost today, and where was it") is None


def test_the_users_own_tests_may_resemble_each_other_but_not_repeat():
    requests = known((LONG, "test_unseen"))
    assert kind_of(requests, LONG.replace("250", "300"), "test_seen", given=True) is None
    assert kind_of(requests, LONG.replace("250", "300"), "train", given=True) == "near_duplicate"
    assert kind_of(requests, f"{LONG}!", "test_seen", given=True) == "duplicate"


@given(REQUESTS, REQUESTS)
def test_likeness_is_symmetric_and_a_request_that_is_taken_is_never_new(one, other):
    share = jaccard(word_pairs(one), word_pairs(other))
    assert share == jaccard(word_pairs(other), word_pairs(one)) and 0 <= share <= 1
    assert kind_of(known((one, "train")), one, "validation") == "duplicate"
    if normalized(one) != normalized(other) and share >= 0.8:
        assert kind_of(known((one, "train")), other) == kind_of(known((other, "train")), one) == "near_duplicate"


def test_what_is_found_does_not_depend_on_the_process():
    program = (
        "from schema_student.data.dedup import RequestIndex\n"
        f"r = RequestIndex(0.8, 13); r.add({LONG!r}, 'train')\n"
        f"print(r.find_problem({LONG.replace('250', '300')!r}, 'train'))"
    )
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    one, other = (subprocess.check_output([sys.executable, "-c", program], env=each) for each in environments)
    assert one == other and b"near_duplicate" in one
