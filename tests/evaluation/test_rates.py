"""Every number of a summary, against a table of rows that is counted by hand."""

import math

import pytest

from schema_student.core.records import EvaluationRow
from schema_student.evaluation.rates import compute_perplexity, describe_decodings, print_summary, rates, summarize

RANKS = {"not json": 0, "enum": 3, "valid": 4, "right": 5}


def row(number, schema_id, split, rank, **more):
    """A row; the teacher's verdict is the rank's unless said otherwise."""
    valid, right = rank in ("valid", "right"), rank == "right"
    told = {"query": f"q{number}", "current_date": "2026-01-31", "language": "en", "kind": "answerable"}
    told |= {"raw_output": "{}", "parsed": rank != "not json", "schema_valid": valid, "rank": RANKS[rank]}
    told |= {"semantic_pass": right, "teacher_verdict": right if valid else None}
    told |= {"exact_match": False, "semantic_match_target": right, "should_refuse": False, "refused": False}
    return EvaluationRow(schema_id=schema_id, split=split, **(told | more))


def part(name, right, given=True, expected=True):
    return {"name": name, "right": right, "given": given, "expected": expected}


ROWS = [
    row(1, "a", "test_seen", "right", exact_match=True, tokens=10, seconds=0.5, p_truth=0.9, reference_logp=-1.0,
        reference_tokens=4, parts=[part("city", True), part("day", True)]),
    row(2, "a", "test_seen", "valid", tokens=20, seconds=1.0, p_truth=0.3, reference_logp=-3.5, reference_tokens=2,
        fences_stripped=True, parts=[part("city", False), part("day", False, given=False)]),
    row(3, "a", "test_seen", "right", tokens=5, seconds=0.125, read=True, semantic_match_target=None, kind=None,
        parts=[part("city", True)]),
    row(4, "b", "test_seen", "enum", tokens=30, seconds=2.0, language="fr", truncated=True, refused=False,
        parts=[part("city", False), part("stars", False, expected=False)]),
    row(5, "b", "test_unseen", "not json", kind="refusal", should_refuse=True, truncated=True, too_long=True),
    row(6, "b", "test_unseen", "right", kind="refusal", should_refuse=True, refused=True, tokens=40, seconds=1.0),
    row(7, "b", "test_unseen", "valid", refused=True, tokens=50, seconds=2.0, p_truth=0.0),
    row(8, "c", "test_unseen", "valid", teacher_verdict=None, teacher_error="timed out", semantic_pass=None,
        should_refuse=None, refused=None, exact_match=None, language=None, mask_changes=6),
]  # fmt: skip

# (k, n) of each rate: of all rows, of test_seen, of test_unseen.
COUNTS = {
    "parsed_rate": [(7, 8), (4, 4), (3, 4)],
    "schema_valid_rate": [(6, 8), (3, 4), (3, 4)],
    "exact_match_rate": [(1, 7), (1, 4), (0, 3)],
    "semantic_match_target_rate": [(2, 7), (1, 3), (1, 4)],
    "teacher_accept_rate": [(3, 5), (2, 3), (1, 2)],
    "semantic_pass_rate": [(3, 7), (2, 4), (1, 3)],
    "wrong_but_valid_rate": [(2, 7), (1, 4), (1, 3)],
    "refusal_precision": [(1, 2), (0, 0), (1, 2)],
    "refusal_recall": [(1, 2), (0, 0), (1, 2)],
}

GROUPS = {
    "splits": {"test_seen": 4, "test_unseen": 4},
    "kinds": {"answerable": 5, "refusal": 2},
    "languages": {"en": 6, "fr": 1},
}


@pytest.fixture(scope="module")
def summary():
    return summarize(ROWS)


@pytest.mark.parametrize("name", COUNTS)
def test_each_rate_counts_the_rows_of_which_it_is_known(summary, name):
    groups = [summary["overall"], summary["splits"]["test_seen"], summary["splits"]["test_unseen"]]
    assert [(found[name]["k"], found[name]["n"]) for found in groups] == COUNTS[name]
    (k, n), share = COUNTS[name][0], groups[0][name]
    assert share["rate"] == round(k / n, 6) and share["low"] < share["rate"] < share["high"]


def test_a_rate_stands_in_its_wilson_interval(summary):
    # z^2 = 3.8415: (3 + 1.9207) / 10.8415 = 0.4539, half 1.96 sqrt(3 * 4 / 7 + 0.9604) / 10.8415 = 0.2957
    share = summary["overall"]["semantic_pass_rate"]
    assert (share["low"], share["high"]) == (pytest.approx(0.1582, abs=1e-4), pytest.approx(0.7495, abs=1e-4))


def test_groups_are_of_splits_kinds_and_languages(summary):
    totals = {name: {value: found["total"] for value, found in summary[name].items()} for name in GROUPS}
    assert totals == GROUPS and summary["total"] == summary["overall"]["total"] == 8


def test_odd_rows_are_counted(summary):
    odd = ("truncated", "fences_stripped", "prompts_too_long", "teacher_errors")
    assert [summary["overall"][name] for name in odd] == [2, 1, 1, 1]
    assert [summary["splits"]["test_unseen"][name] for name in odd] == [1, 0, 1, 1]


def test_likelihoods_are_means_over_what_was_read(summary):
    assert summary["overall"]["p_truth"] == 0.4  # of 0.9, 0.3 and 0, which is a value
    assert summary["overall"]["reference_perplexity"] == pytest.approx(math.exp(4.5 / 6), abs=1e-6)
    assert summary["splits"]["test_unseen"]["p_truth"] == 0.0
    assert summary["splits"]["test_unseen"]["reference_perplexity"] is None
    sure = row(9, "a", "test_seen", "right", reference_logp=0.0, reference_tokens=2)
    assert rates([sure])["reference_perplexity"] == 1.0


def test_schemas_are_drawn_whole(summary):
    # Passed of those known: a 2 of 3, b 1 of 4; of c nothing is known. Both alone are the ends of the interval.
    assert summary["overall"]["by_schema"]["semantic_pass_rate"] == {"low": 0.25, "high": 0.666667, "schemas": 2}
    assert rates(ROWS[:3])["by_schema"]["semantic_pass_rate"] == {"low": None, "high": None, "schemas": 1}


def test_fields_have_their_precision_and_recall_the_most_often_wrong_first(summary):
    counts = {
        name: [(found[of]["k"], found[of]["n"]) for of in ("precision", "recall")]
        for name, found in summary["fields"].items()
    }
    assert counts == {"city": [(2, 4), (2, 4)], "day": [(1, 1), (1, 2)], "stars": [(0, 1), (0, 0)]}
    assert list(counts) == ["city", "day", "stars"]


def test_speed_is_that_of_answers_that_were_written(summary):
    speed = summary["speed"]
    assert (speed["tokens"], speed["seconds"], speed["tokens_per_second"]) == (150, 6.5, 23.1)
    assert speed["read"] == 1 and speed["mask_changes"] == 6
    # Five with tokens and seconds: 10 in 0.5 s, 20 in 1, 30 in 2, 40 in 1, 50 in 2. p10 lies 0.4 of the first step.
    assert speed["seconds_percentiles"] == {"p10": 0.7, "p50": 1.0, "p90": 2.0, "p99": 2.0}
    assert speed["tokens_per_second_percentiles"] == {"p10": 17.0, "p50": 20.0, "p90": 34.0, "p99": 39.4}
    assert speed["tokens_percentiles"] == {"p10": 14.0, "p50": 30.0, "p90": 46.0, "p99": 50.0}


def test_of_nothing_there_is_no_speed():
    speed = summarize([row(1, "a", "test_seen", "right", read=True)])["speed"]
    assert (speed["tokens"], speed["tokens_per_second"], speed["read"]) == (0, None, 1)
    assert speed["seconds_percentiles"] == {} and "mask_changes" not in speed


def test_answers_without_tokens_or_without_seconds_have_no_speed_of_their_own():
    rows = [row(1, "a", "test_seen", "right", tokens=4, seconds=2.0)]
    rows += [row(2, "a", "test_seen", "right", tokens=3), row(3, "a", "test_seen", "right", seconds=1.0)]
    speed = summarize(rows)["speed"]
    assert (speed["tokens"], speed["seconds"], speed["seconds_percentiles"]["p10"]) == (7, 3.0, 2.0)
    assert speed["tokens_percentiles"]["p99"] == 4.0 and speed["tokens_per_second_percentiles"]["p50"] == 2.0


def test_a_perplexity_beyond_a_double_is_none():
    assert compute_perplexity(1400.0, 2) == round(math.exp(700.0), 6) and compute_perplexity(1400.5, 2) is None


def test_where_nothing_was_written_both_decodings_have_nothing():
    nothing = summarize([row(1, "a", "test_seen", "right", read=True, mask_changes=0)])
    nothing["speed"]["mask_changes"] = 0
    empty = summarize([])
    lines = [line.split() for line in describe_decodings(empty, {**nothing, "overall": empty["overall"]})]
    assert lines[1:] == [
        ["schema", "valid", "0.0%", "0.0%"],
        ["semantic", "pass", "0.0%", "0.0%"],
        ["truncated", "0", "0"],
        ["tokens", "per", "second", "0", "0"],
        ["tokens", "changed", "0.0%"],
    ]


def test_of_nothing_a_summary_says_no_rate(capsys):
    print_summary("student", summarize([]))
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["overall", "0", "-", "-", "-", "-"],
        ["0", "tokens/s"],
    ]


def test_two_decodings_stand_side_by_side(summary):
    lines = describe_decodings(summarize(ROWS[:2]), summary)
    assert [line.split() for line in lines] == [
        ["free", "constrained"],
        ["schema", "valid", "100.0%", "75.0%"],
        ["semantic", "pass", "50.0%", "42.9%"],
        ["truncated", "0", "2"],
        ["tokens", "per", "second", "20", "23"],
        ["tokens", "changed", "4.0%"],  # 6 of 150
    ]


def test_the_summary_is_said_split_by_split(summary, capsys):
    print_summary("student", summary)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == "student prompts schema valid semantic pass exact match wrong but valid".split()
    assert [line.split() for line in lines[:3]] == [
        ["test_seen", "4", "75.0%", "50.0%", "25.0%", "25.0%"],
        ["test_unseen", "4", "75.0%", "33.3%", "0.0%", "33.3%"],
        ["overall", "8", "75.0%", "42.9%", "14.3%", "28.6%"],
    ]
    assert lines[3] == "P(truth) 40.0%, the likelihood of right answers; 1 known by reading"
    assert lines[4] == "23 tokens/s; truncated 2, prompts too long 1, teacher errors 1, fences stripped 1"
