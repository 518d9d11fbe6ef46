"""Compute intervals and tests for counts of right answers, of one student and of two on the same prompts."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from schema_student.core.jsonl import Row

Z = 1.959964  # of a two-sided 95% interval


def sign_test(fixed: int, broken: int) -> float:
    """Test two counts by a two-sided exact sign test (McNemar): the chance of a split at least this uneven.

    >>> sign_test(8, 0)
    0.0078125
    """
    n, less = fixed + broken, min(fixed, broken)
    if n == 0:
        return 1.0
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(less + 1)) / 2**n)


def paired_change(now: Sequence[float], then: Sequence[float]) -> tuple[float, float]:
    """Compute the mean of paired differences and its standard error; both 0 for fewer than two pairs.

    >>> paired_change([0.5, 0.75, 1.0], [0.5, 0.5, 0.5])
    (0.25, 0.14433756729740643)
    """
    changes = [a - b for a, b in zip(now, then, strict=True)]
    n = len(changes)
    if n < 2:
        return 0.0, 0.0
    mean = math.fsum(changes) / n
    return mean, math.sqrt(math.fsum((change - mean) ** 2 for change in changes) / (n - 1) / n)


def z_of(change: float, error: float) -> float:
    """Compute a change in units of its standard error; 0 where there is no change.

    >>> z_of(0.25, 0.125)
    2.0
    """
    return 0.0 if change == 0 else change / error if error else math.copysign(math.inf, change)


def normal_test(z: float) -> float:
    """Compute the chance of a standard normal deviate at least this far from 0, to either side.

    >>> round(normal_test(1.959964), 6)
    0.05
    """
    return math.erfc(abs(z) / math.sqrt(2))


def wilson(k: int, n: int) -> Row:
    """Compute a share and its 95% interval (Wilson 1927), which holds for few rows and at 0 and 1; null for no rows.

    >>> wilson(9, 10)
    {'rate': 0.9, 'low': 0.59585, 'high': 0.982124, 'n': 10, 'k': 9}
    """
    if n == 0:
        return {"rate": None, "low": None, "high": None, "n": 0, "k": 0}
    center = (k + Z * Z / 2) / (n + Z * Z)
    half = Z * math.sqrt(k * (n - k) / n + Z * Z / 4) / (n + Z * Z)
    low, high = (round(max(bound, 0.0), 6) for bound in (center - half, center + half))  # by k = 0 low may be -1e-17
    return {"rate": round(k / n, 6), "low": low, "high": high, "n": n, "k": k}


def paired_difference(fixed: int, broken: int, n: int) -> Row:
    """Compute the difference of two shares of the same n prompts and its 95% interval (Agresti and Min 2005).

    `fixed` prompts are right for the second alone, `broken` for the first alone. Half a prompt is added to each of
    the four cells, so that the interval holds for few prompts and is no point where nothing changed.

    >>> paired_difference(10, 2, 100)
    {'difference': 0.08, 'low': 0.010842, 'high': 0.146021, 'n': 100}
    """
    if n == 0:
        return {"difference": None, "low": None, "high": None, "n": 0}
    more, less, all_of = fixed + 0.5, broken + 0.5, n + 2
    center = (more - less) / all_of
    half = Z * math.sqrt(more + less - (more - less) ** 2 / all_of) / all_of
    low, high = (round(min(max(bound, -1.0), 1.0), 6) for bound in (center - half, center + half))
    return {"difference": round((fixed - broken) / n, 6), "low": low, "high": high, "n": n}


def smallest_difference(n: int, discordant: float, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Compute the smallest difference of two shares that the exact test shows with this power on n prompts.

    `discordant` is the share of prompts on which the two differ, of which the expected number is taken. None where
    even a difference of all of them would not be shown.

    >>> smallest_difference(400, 0.1)
    0.044316
    """
    changed = round(n * discordant)
    if sign_test(changed, 0) > alpha:
        return None
    uneven = range((changed + 1) // 2, changed + 1)  # ever less likely
    least = uneven[bisect_left(uneven, True, key=lambda k: sign_test(k, changed - k) <= alpha)]
    low, high = 0.5, 1.0  # the chance of a discordant prompt to be one that the better student answers
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _upper_tail(least, changed, middle) >= power else (middle, high)
    return round(changed / n * (2 * high - 1), 6)


def _upper_tail(least: int, n: int, p: float) -> float:
    """The chance of at least that many successes of n; by logarithms, as n may be thousands."""
    logs = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(least, n + 1))
    return sum(
        math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))
        for k, log in zip(range(least, n + 1), logs, strict=True)
    )


def cohen_kappa(both: int, first_only: int, second_only: int, neither: int) -> float | None:
    """Compute how far two raters' yes and no agree beyond chance (Cohen 1960); None where chance alone would agree.

    >>> cohen_kappa(20, 5, 10, 15)
    0.4
    """
    n = both + first_only + second_only + neither
    if n == 0:
        return None
    yes = (both + first_only) * (both + second_only) / n**2
    no = (second_only + neither) * (first_only + neither) / n**2
    return round(((both + neither) / n - yes - no) / (1 - yes - no), 6) if yes + no < 1 else None


def pass_at_k(n: int, right: int, k: int) -> float:
    """Estimate the chance that one of k samples is right, from n samples of which some are (Chen et al. 2021, eq. 1).

    Unbiased: 1 - C(n - right, k) / C(n, k), for k up to n (arXiv 2107.03374).

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
    (0.25, 0.5, 1.0)
    """
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def holm(chances: Sequence[float]) -> list[float]:
    """Correct the p values of several tests (Holm 1979): those to hold against alpha, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(chances), 0.0
    for rank, i in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[i]))
        corrected[i] = largest
    return corrected


def bootstrap_clusters(
    sums: Sequence[float], sizes: Sequence[int], draws: int = 2000, seed: int = 13
) -> tuple[float, float] | None:
    """Compute the 95% interval of sum(sums) / sum(sizes) by drawing whole clusters (percentile bootstrap, seeded).

    Prompts of one schema hang together: drawn one by one they would look like more than they are. `sums` are counts
    of right prompts a schema, or of those fixed less those broken. None with fewer than two clusters.
    """
    if len(sums) < 2:
        return None
    import numpy

    drawn = numpy.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    shares = numpy.asarray(sums, float)[drawn].sum(1) / numpy.asarray(sizes, float)[drawn].sum(1)
    low, high = numpy.quantile(shares, (0.025, 0.975))
    return round(float(low), 6), round(float(high), 6)
