"""How often 95 % intervals of a mean hold the true mean, by method, number of values and distribution.

    python benchmarks/intervals.py            the table of docs/measures.md, about a minute
    python benchmarks/intervals.py --draws 200

Each draw takes n values from a distribution whose mean is known. Printed is the share of draws whose interval holds
that mean, in percent, and the median width relative to that of the percentile bootstrap. `ours` is `stats.bootstrap`.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
from scipy.stats import norm, t

from unteach.stats import bootstrap

Ends = tuple[float, float]
RESAMPLES = 1000


def _skewed_difference(rng: np.random.Generator, n: int) -> np.ndarray:
    before, after = rng.lognormal(0, 1, n), rng.lognormal(0, 1, n)
    return np.where(rng.random(n) < 0.5, 0.0, before - 0.5 * after)


DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "normal": (lambda rng, n: rng.normal(0, 1, n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(1, n), 1.0),
    "lognormal": (lambda rng, n: rng.lognormal(0, 1, n), math.exp(0.5)),
    "nine in ten are 0": (lambda rng, n: np.where(rng.random(n) < 0.1, rng.random(n), 0.0), 0.05),
    "difference of rates": (
        lambda rng, n: (rng.random(n) < 0.30).astype(float) - (rng.random(n) < 0.15),
        0.15,
    ),
    "skewed difference": (_skewed_difference, 0.25 * math.exp(0.5)),
}


def _means(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    drawn = values[rng.integers(0, len(values), size=(RESAMPLES, len(values)))]
    return drawn.mean(axis=1), drawn.std(axis=1, ddof=1)


def percentile(values: np.ndarray, rng: np.random.Generator) -> Ends:
    """Quantiles of the resampled means."""
    low, high = np.quantile(_means(values, rng)[0], [0.025, 0.975])
    return float(low), float(high)


def bca(values: np.ndarray, rng: np.random.Generator) -> Ends:
    """Bias-corrected and accelerated (Efron 1987)."""
    n, mean = len(values), values.mean()
    means = _means(values, rng)[0]
    share = (np.mean(means < mean) + np.mean(means <= mean)) / 2
    if not 0 < share < 1:
        return float(mean), float(mean)
    bias, apart = norm.ppf(share), mean - (values.sum() - values) / (n - 1)
    spread = (apart**2).sum()
    speed = (apart**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + norm.ppf([0.025, 0.975])
    low, high = np.quantile(means, norm.cdf(bias + z / (1 - speed * z)))
    return float(low), float(high)


def student(values: np.ndarray, rng: np.random.Generator) -> Ends:
    """Student's t."""
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def studentised(values: np.ndarray, rng: np.random.Generator) -> Ends:
    """Quantiles of the resampled t (Efron 1981, bootstrap-t)."""
    means, spreads = _means(values, rng)
    own = values.std(ddof=1)
    usable = spreads > 1e-9 * max(own, 1e-300)
    if own == 0 or not usable.any():
        return float(values.mean()), float(values.mean())
    low, high = np.quantile((means[usable] - values.mean()) / spreads[usable], [0.025, 0.975])
    return float(values.mean() - high * own), float(values.mean() - low * own)


def ours(values: np.ndarray, rng: np.random.Generator) -> Ends:
    """What unteach reports."""
    _, low, high = bootstrap(values.tolist(), seed=int(rng.integers(2**31)))
    return float(low or 0.0), float(high or 0.0)


METHODS = {"percentile": percentile, "BCa": bca, "t": student, "bootstrap-t": studentised, "ours": ours}


def coverage(name: str, n: int, draws: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return, by method, the share of intervals that hold the true mean, and their median width."""
    draw, true = DISTRIBUTIONS[name]
    held = {method: 0 for method in METHODS}
    widths: dict[str, list[float]] = {method: [] for method in METHODS}
    rng = np.random.default_rng([seed, n, *name.encode()])
    for _ in range(draws):
        values = draw(rng, n)
        for method, interval in METHODS.items():
            low, high = interval(values, rng)
            held[method] += low - 1e-12 <= true <= high + 1e-12
            widths[method].append(high - low)
    return {method: (held[method] / draws, float(np.median(widths[method]))) for method in METHODS}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How often 95 % intervals of a mean hold it.")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 20, 40, 80, 200])
    chosen = parser.parse_args()
    print("| distribution | n | " + " | ".join(METHODS) + " |")
    print("|---|---|" + "---|" * len(METHODS))
    for name in DISTRIBUTIONS:
        for n in chosen.counts:
            found = coverage(name, n, chosen.draws, chosen.seed)
            base = found["percentile"][1] or 1.0
            cells = [f"{share:.1%} ({width / base:.2f})" for share, width in found.values()]
            print(f"| {name} | {n} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
