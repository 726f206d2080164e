"""95 % intervals for rates, means and paired differences."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

RESAMPLES = 2000
_AT_ONCE = 1_000_000

Interval = tuple[float | None, float | None, float | None]


def wilson(successes: int, n: int) -> Interval:
    """Return a rate and its Wilson score interval, as fractions; three None where n is 0.

    Unlike the normal approximation it stays inside 0 to 1 and keeps its width at 0 of n and n of n.
    Raises ValueError unless 0 ≤ successes ≤ n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return None, None, None
    interval = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return successes / n, float(interval.low), float(interval.high)


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean and its percentile bootstrap interval, in the values' unit.

    Three None without values; the mean alone for one value, which says nothing about spread. Equal seeds give equal
    intervals. Raises ValueError for a value that is not finite: the caller decides what it stands for.
    """
    drawn_from = np.asarray(values, dtype=np.float64)
    n = len(drawn_from)
    if n == 0:
        return None, None, None
    if not np.isfinite(drawn_from).all():
        raise ValueError("a value to be averaged is not finite")
    if n == 1:
        return float(drawn_from[0]), None, None
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // n)
    means = np.concatenate(
        [
            drawn_from[rng.integers(0, n, size=(min(step, RESAMPLES - start), n))].mean(axis=1)
            for start in range(0, RESAMPLES, step)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return float(drawn_from.mean()), float(low), float(high)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of a − b over pairs, and its bootstrap interval over pairs.

    Raises ValueError where the two differ in length.
    """
    return bootstrap([ours - theirs for ours, theirs in zip(a, b, strict=True)], seed)
