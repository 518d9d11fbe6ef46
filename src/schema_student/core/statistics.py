"""Compute intervals and tests for counts of right answers."""

from __future__ import annotations

import math

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


def wilson(k: int, n: int) -> Row:
    """Compute a share and its 95% interval (Wilson 1927), which holds for few rows and at 0 and 1; null for no rows.

    >>> wilson(9, 10)
    {'rate': 0.9, 'low': 0.59585, 'high': 0.982124, 'n': 10, 'k': 9}
    """
    if n == 0:
        return {"rate": None, "low": None, "high": None, "n": 0, "k": 0}
    center = (k + Z * Z / 2) / (n + Z * Z)
    half = Z * math.sqrt(k * (n - k) / n + Z * Z / 4) / (n + Z * Z)
    low, high = (round(min(max(bound, 0.0), 1.0), 6) for bound in (center - half, center + half))
    return {"rate": round(k / n, 6), "low": low, "high": high, "n": n, "k": k}
