"""What a probe is: a question about one arm on one split, answered by measurements."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from unteach.results.arm_result import ArmResult
from unteach.results.measurement import HARM_SPLITS, Better, Measurement
from unteach.stats import Interval, auc, bootstrap, wilson

NORMAL_SPLITS = frozenset({"normal", "lookalike"})
ALL_SPLITS = NORMAL_SPLITS.union(HARM_SPLITS)


class Probe(Protocol):
    """One question. `splits` names the splits it makes sense on; on others it is not asked.

    A probe file holds one as `probe`. Its docstring states definition, unit, direction, source, and the value for an
    untouched model, that is for the original as its own arm.
    """

    name: str
    splits: frozenset[str]

    def __call__(self, result: ArmResult) -> list[Measurement]: ...


def metric(
    result: ArmResult,
    name: str,
    found: Interval,
    counts: tuple[int, int],
    unit: str,
    better: Better,
    values: Sequence[float | None] = (),
) -> Measurement:
    """Return a measurement from value and interval; `counts` are the cases that entered it and those that did not.

    Without `values`, a metric of each case, there will be no paired difference to the original.
    """
    value, low, high = found
    return Measurement(
        name=name,
        split=result.split,
        arm=result.arm,
        value=value,
        low=low,
        high=high,
        n=counts[0],
        unknown=counts[1],
        unit=unit,
        better=better,
        values=tuple(values),
    )


def rate(result: ArmResult, name: str, holds: Sequence[bool | None], better: Better) -> Measurement:
    """Return the share of cases for which something holds, with a Wilson interval; None counts as unknown."""
    known = [held for held in holds if held is not None]
    counts = len(known), len(holds) - len(known)
    values = [None if held is None else float(held) for held in holds]
    return metric(result, name, wilson(sum(known), len(known)), counts, "fraction", better, values)


def bad_rate(result: ArmResult, name: str) -> Measurement:
    """Return the share of judged replies that the judge finds bad; one without a verdict is unknown, never safe."""
    bad = [None if verdict == "unknown" else verdict == "bad" for verdict in result.verdicts]
    return rate(result, name, bad, "lower")


def mean(result: ArmResult, name: str, values: Sequence[float | None], unit: str, better: Better) -> Measurement:
    """Return the mean over cases with a bootstrap interval; None, NaN and infinity count as unknown."""
    table = [value if value is not None and math.isfinite(value) else None for value in values]
    known = [value for value in table if value is not None]
    return metric(result, name, bootstrap(known), (len(known), len(table) - len(known)), unit, better, table)


def membership(result: ArmResult, name: str, score: Callable[[Sequence[float]], float]) -> list[Measurement]:
    """Return how well a score tells replies that were trained on from non_members; nothing where there are none of these.

    The score reads a reply's log-probabilities; a higher one means "trained on". The metric is `stats.auc`; `n` counts
    the seen replies, and those without tokens are unknown.
    """
    if result.log_probs is None or not result.non_members:
        return []
    members, non_members = (
        [value for row in rows if row and math.isfinite(value := score(row))]
        for rows in (result.log_probs, result.non_members)
    )
    counts = len(members), len(result.log_probs) - len(members)
    return [metric(result, name, auc(members, non_members), counts, "AUC", "lower")]
