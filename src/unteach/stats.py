"""95 % intervals of rates, means, paired differences, the area under the ROC curve and the KS distance.

`scipy.stats` is imported where it is needed: it takes half a second, and every verb reads this file.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

RESAMPLES = 2000
FEW = 100
"""Below so many values the percentile bootstrap is too narrow (`benchmarks/intervals.py`)."""
_AT_ONCE = 1_000_000

Interval = tuple[float | None, float | None, float | None]


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return a rate and its Wilson score interval of a confidence level, as fractions; three None where n is 0.

    Unlike the normal approximation it stays inside 0 to 1 and keeps its width at 0 of n and n of n.
    Raises ValueError unless 0 ≤ successes ≤ n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return None, None, None
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return successes / n, float(interval.low), float(interval.high)


def balanced_accuracy(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """Return the mean of two rates, each given as (right, n), with a 95 % interval; all None where one has no case.

    The interval is put together from the two Wilson intervals (MOVER: their distances to the two rates are added as
    squares). Source: Zou and Donner 2008.
    """
    (a, a_low, a_high), (b, b_low, b_high) = wilson(*first), wilson(*second)
    if a is None or a_low is None or a_high is None or b is None or b_low is None or b_high is None:
        return None, None, None
    mean = (a + b) / 2
    return mean, mean - math.hypot(a - a_low, b - b_low) / 2, mean + math.hypot(a_high - a, b_high - b) / 2


def sign_test(fewer: int, more: int) -> float:
    """Return the one-sided p of the exact sign test: the chance of so many falls if falls and rises are as likely.

    McNemar's exact test, where the pairs are verdicts on the same prompts. 1 where nothing changed.
    """
    from scipy.stats import binomtest

    changed = fewer + more
    return float(binomtest(fewer, changed, 0.5, alternative="greater").pvalue) if changed else 1.0


def bootstrap(values: Sequence[float], seed: int = 0, within: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Return the mean and its bootstrap interval, in the values' unit.

    From `FEW` values on it is the percentile interval. Below, each end is the further one of Student's t and of the
    bootstrap of t (Efron 1981), at most three times as far as the former, and cut to `within`, between which values
    can lie: the percentile interval holds the mean of 10 skewed values in four of five cases, not in 19 of 20.

    Three None without values; the mean alone for one value, which says nothing about spread. Equal seeds give equal
    intervals. Raises ValueError for a value that is not finite: the caller must decide what it means.
    """
    drawn_from = _finite(values)
    n = len(drawn_from)
    if n == 0:
        return None, None, None
    if n == 1:
        return float(drawn_from[0]), None, None
    rng = np.random.default_rng(seed)
    value = float(drawn_from.mean())
    resamples = (drawn_from[rng.integers(0, n, size=(count, n))] for count in _parts(n))
    if n >= FEW:
        low, high = np.quantile(np.concatenate([drawn.mean(axis=1) for drawn in resamples]), [0.025, 0.975])
        return value, float(low), float(high)
    left, right = _reach_of_few(drawn_from, resamples)
    return value, max(within[0], value - left), min(within[1], value + right)


def _reach_of_few(values: np.ndarray, resamples: Iterator[np.ndarray]) -> tuple[float, float]:
    """Return how far an interval of few values goes below their mean and above it."""
    n, spread = len(values), float(values.std(ddof=1))
    if spread <= 1e-12 * float(np.abs(values).max()):
        return 0.0, 0.0
    from scipy.stats import t as student

    usual = float(student.ppf(0.975, n - 1))
    drawn = np.concatenate([np.stack([part.mean(axis=1), part.std(axis=1, ddof=1)]) for part in resamples], axis=1)
    means, spreads = drawn[:, drawn[1] > 1e-9 * spread]
    low, high = np.quantile((means - values.mean()) / spreads, [0.025, 0.975]) * math.sqrt(n)
    left, right = (min(max(reach, usual), 3 * usual) for reach in (float(high), float(-low)))
    return left * spread / math.sqrt(n), right * spread / math.sqrt(n)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of a − b over pairs, and its bootstrap interval over pairs.

    Where all values are fractions, so is the interval's reach: a share falls by 1 at most. Raises ValueError where the
    two differ in length.
    """
    fractions = all(0 <= value <= 1 for value in (*a, *b))
    within = (-1.0, 1.0) if fractions else (-math.inf, math.inf)
    return bootstrap([ours - theirs for ours, theirs in zip(a, b, strict=True)], seed, within)


def auc(members: Sequence[float], non_members: Sequence[float], seed: int = 0) -> Interval:
    """Return the chance that a member's score is above a non-member's, ties counting half, and its interval.

    It is the area under the ROC curve: 0.5 where the scores tell nothing. The percentile bootstrap resamples members
    and non-members apart; where the two do not overlap the interval is a point, which claims too much for few scores.
    Three None without scores on one side; no interval for a single score. Raises ValueError for a score that is not
    finite.
    """
    ours, theirs = _finite(members), _finite(non_members)
    n, m = len(ours), len(theirs)
    if not n or not m:
        return None, None, None
    value = float(_auc(ours[None], theirs[None])[0])
    if n == 1 or m == 1:
        return value, None, None
    rng = np.random.default_rng(seed)
    drawn = [
        _auc(ours[rng.integers(0, n, size=(count, n))], theirs[rng.integers(0, m, size=(count, m))])
        for count in _parts(n + m)
    ]
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return value, float(low), float(high)


def ks_distance(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Interval:
    """Return sup |F(x) − G(x)| between the distributions of two paired lists, and its interval.

    The distance between resampled lists is always too large, so its quantiles are no interval. What is resampled
    instead, over pairs since `a` and `b` are of the same cases, is sup |(F* − G*) − (F − G)|. The distance plus and
    minus the 95 % quantile of that holds the true distance at least as often as it should, 0 included (triangle
    inequality). Three None without pairs, no interval for one pair. Raises ValueError where the two differ in length or
    a value is not finite.
    """
    ours, theirs = _finite(a), _finite(b)
    n = len(ours)
    if n != len(theirs):
        raise ValueError(f"{n} values against {len(theirs)}: a distance between paired lists needs as many")
    if n == 0:
        return None, None, None
    pooled = np.concatenate([ours, theirs])
    order = np.argsort(pooled, kind="stable")
    ends = np.append(np.diff(pooled[order]) > 0, True)  # the last of each run of equal values
    seen = np.cumsum(np.where(order < n, 1, -1))[ends]  # n·(F − G) at each value
    value = float(np.abs(seen).max() / n)
    if n == 1:
        return value, None, None
    rng = np.random.default_rng(seed)
    strayed = []
    for count in _parts(2 * n):
        times = rng.multinomial(n, np.full(n, 1 / n), size=count)
        steps = np.concatenate([times, -times], axis=1)[:, order]
        strayed.append(np.abs(np.cumsum(steps, axis=1)[:, ends] - seen).max(axis=1) / n)
    reach = float(np.quantile(np.concatenate(strayed), 0.95))
    return value, max(0.0, value - reach), min(1.0, value + reach)


def _auc(members: np.ndarray, non_members: np.ndarray) -> np.ndarray:
    """The Mann-Whitney statistic of each row, as a share of all pairs."""
    from scipy.stats import rankdata

    n, m = members.shape[1], non_members.shape[1]
    ranks = rankdata(np.concatenate([members, non_members], axis=1), axis=1)[:, :n]
    return (ranks.sum(axis=1) - n * (n + 1) / 2) / (n * m)


def _finite(values: Sequence[float]) -> np.ndarray:
    listed = np.asarray(values, dtype=np.float64)
    if not np.isfinite(listed).all():
        raise ValueError("a value is not finite")
    return listed


def _parts(width: int) -> Iterator[int]:
    """Yield how many resamples of `width` numbers to draw at once, RESAMPLES in all, so that memory stays bounded."""
    step = max(1, _AT_ONCE // width)
    for start in range(0, RESAMPLES, step):
        yield min(step, RESAMPLES - start)
