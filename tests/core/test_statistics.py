"""Intervals and tests: held against numbers written out by hand, and against simulation."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.core.statistics import (
    bootstrap_clusters,
    cohen_kappa,
    holm,
    normal_test,
    paired_change,
    paired_difference,
    pass_at_k,
    sign_test,
    smallest_difference,
    wilson,
    z_of,
)


@pytest.mark.parametrize(
    ("fixed", "broken", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (5, 0, 2 / 32), (6, 0, 2 / 64), (9, 1, 2 * (1 + 10) / 1024), (7, 2, 2 * 46 / 512)],
)
def test_mcnemar_is_the_exact_two_sided_binomial_test_of_the_discordant_prompts(fixed, broken, p):
    assert sign_test(fixed, broken) == sign_test(broken, fixed) == pytest.approx(p)


def test_the_paired_difference_is_worked_out_by_hand():
    found = paired_difference(9, 2, 60)
    center = (9.5 - 2.5) / 62
    half = 1.959964 * math.sqrt(12 - 7**2 / 62) / 62
    assert found == {
        "difference": round(7 / 60, 6),
        "low": pytest.approx(center - half, abs=1e-6),
        "high": pytest.approx(center + half, abs=1e-6),
        "n": 60,
    }
    assert paired_difference(0, 0, 0)["difference"] is None
    assert paired_difference(0, 0, 50)["low"] < 0 < paired_difference(0, 0, 50)["high"]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_the_paired_difference_turns_its_sign_with_its_sides(fixed, broken, same):
    there, back = (
        paired_difference(fixed, broken, fixed + broken + same),
        paired_difference(broken, fixed, fixed + broken + same),
    )
    if there["n"]:
        assert there["low"] == -back["high"] and there["difference"] == -back["difference"]
        assert -1 <= there["low"] <= there["high"] <= 1


def test_the_paired_interval_covers_the_truth_about_nineteen_times_of_twenty():
    rng, covered = random.Random(1), 0
    for _ in range(600):
        drawn = [rng.random() for _ in range(120)]  # fixed with 0.12, broken with 0.05
        found = paired_difference(sum(d < 0.12 for d in drawn), sum(d > 0.95 for d in drawn), 120)
        covered += found["low"] <= 0.07 <= found["high"]
    assert 0.93 <= covered / 600 <= 0.98


def test_the_smallest_difference_is_the_one_that_simulated_tests_show_four_times_of_five():
    n, discordant = 300, 0.2
    difference = smallest_difference(n, discordant)
    rng, shown = random.Random(2), 0
    for _ in range(1000):
        fixed = sum(rng.random() < (1 + difference / discordant) / 2 for _ in range(round(n * discordant)))
        shown += sign_test(fixed, round(n * discordant) - fixed) <= 0.05
    assert 0.76 <= shown / 1000 <= 0.84


def test_means_of_pairs_and_their_errors_are_those_worked_out_by_hand():
    assert paired_change([1, 0], [0, 0]) == (0.5, 0.5)  # deviations of a half, over 1 and 2
    assert paired_change([0.5], [0.25]) == paired_change([], []) == (0.0, 0.0)
    assert (z_of(0, 0), z_of(0, 2), z_of(-1, 0), z_of(3, 0), z_of(-1, 4)) == (0.0, 0.0, -math.inf, math.inf, -0.25)
    assert normal_test(0) == 1.0 and normal_test(-1.5) == normal_test(1.5) == pytest.approx(0.133614, abs=1e-6)


def test_intervals_at_their_ends():
    assert wilson(0, 0) == {"rate": None, "low": None, "high": None, "n": 0, "k": 0}
    assert wilson(0, 10) == {"rate": 0.0, "low": 0.0, "high": 0.277533, "n": 10, "k": 0}
    assert wilson(10, 10) == {"rate": 1.0, "low": 0.722467, "high": 1.0, "n": 10, "k": 10}
    assert all(str(wilson(0, n)["low"]) == "0.0" for n in range(1, 200))
    # 1 of 1: 1.5 - 0.5 over 3, and 1.96 * sqrt(2 - 1 / 3) / 3 to either side, which is above 1
    assert paired_difference(1, 0, 1) == {"difference": 1.0, "low": -0.510101, "high": 1.0, "n": 1}
    assert paired_difference(0, 1, 1) == {"difference": -1.0, "low": -1.0, "high": 0.510101, "n": 1}
    assert paired_difference(0, 0, 0) == {"difference": None, "low": None, "high": None, "n": 0}


def test_two_raters_agree_beyond_chance():
    assert cohen_kappa(20, 5, 10, 15) == cohen_kappa(20, 10, 5, 15) == 0.4
    assert (cohen_kappa(5, 0, 0, 5), cohen_kappa(0, 5, 5, 0), cohen_kappa(1, 1, 1, 1)) == (1.0, -1.0, 0.0)
    # they agree on 6 of 9; both say yes with 4/9 * 3/9, both no with 5/9 * 6/9
    assert cohen_kappa(2, 2, 1, 4) == pytest.approx((6 / 9 - 42 / 81) / (1 - 42 / 81), abs=1e-6)
    assert cohen_kappa(0, 0, 0, 0) is None and cohen_kappa(5, 0, 0, 0) is None and cohen_kappa(0, 0, 0, 1) is None


def test_one_of_k_samples_is_right():
    assert [pass_at_k(5, right, 2) for right in range(6)] == pytest.approx([0, 0.4, 0.7, 0.9, 1, 1])
    assert [pass_at_k(5, 2, k) for k in range(1, 6)] == pytest.approx([0.4, 0.7, 0.9, 1, 1])


def test_too_few_prompts_show_no_difference_at_all():
    assert smallest_difference(50, 0.1) is None  # 5 to 0 is p = 0.0625
    # 6 of 6 must go one way: q**6 = 0.8
    assert smallest_difference(60, 0.1) == pytest.approx(0.1 * (2 * 0.8 ** (1 / 6) - 1), abs=1e-5)
    assert smallest_difference(0, 0.5) is None
    assert smallest_difference(5000, 0.2) < smallest_difference(500, 0.2) < smallest_difference(100, 0.2)


def test_holm_corrects_step_by_step_in_the_order_given():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]


def test_the_bootstrap_draws_whole_clusters():
    one_way = bootstrap_clusters([10, 0] * 10, [10] * 20)
    alike = bootstrap_clusters([5] * 20, [10] * 20)
    lone = wilson(100, 200)
    assert alike == (0.5, 0.5)
    # Twenty prompts that count ten times each: about the interval of ten of twenty, wider than that of 100 of 200.
    assert one_way[0] == pytest.approx(0.5 - 1.96 * 0.5 / math.sqrt(20), abs=0.03)
    assert one_way[1] - one_way[0] > 2 * (lone["high"] - lone["low"])
    assert bootstrap_clusters([10, 0] * 10, [10] * 20) == one_way
    assert bootstrap_clusters([3], [4]) is None and bootstrap_clusters([], []) is None


def test_the_bootstrap_weighs_a_cluster_by_its_size_and_is_the_same_anywhere():
    # Of four draws j are the large cluster: P(0) = 0.32, P(3 or more) = 0.05, P(4) = 0.004; with three it is 12 of 13.
    assert bootstrap_clusters([4, 0, 0, 0], [4, 1, 1, 1]) == (0.0, 0.923077)
    assert bootstrap_clusters([1, 2, 0, 3, 1, 2, 0, 2], [3, 3, 3, 3, 2, 4, 2, 5]) == (0.25, 0.640071)
    assert bootstrap_clusters([1, 0], [1, 1]) == (0.0, 1.0)
