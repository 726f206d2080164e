"""What a probe is: a question about one arm on one split, which measurements answer."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from unteach.results.arm_result import ArmResult
from unteach.results.measurement import HARM_SPLITS, Better, Measurement
from unteach.stats import Interval, bootstrap, wilson

NORMAL_SPLITS = frozenset({"normal", "lookalike"})
ALL_SPLITS = NORMAL_SPLITS.union(HARM_SPLITS)
Value = TypeVar("Value")


class Probe(Protocol):
    """One question. `splits` names the splits on which it is asked.

    A probe file holds one as `probe`. Its docstring states definition, unit, direction, source, and the value for an
    untouched model, that is for the original as its own arm.
    """

    name: str
    splits: frozenset[str]

    def __call__(self, result: ArmResult) -> list[Measurement]: ...


def metric(
    result: ArmResult,
    name: str,
    interval: Interval,
    counts: tuple[int, int],
    unit: str,
    better: Better,
    values: Sequence[float | None] = (),
) -> Measurement:
    """Return a measurement from a value and its interval; `counts` are the known and the unknown cases.

    `values` are those of single cases; without them there is no paired difference to the original.
    """
    value, low, high = interval
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


def of_replies(result: ArmResult, value: Callable[[str], Value]) -> list[Value | None]:
    """Return the value of each reply; None, which counts as unknown, for one that was cut before anything was said."""
    return [None if case.unsaid else value(case.reply) for case in result.cases]


def bad_rate(result: ArmResult, name: str) -> Measurement:
    """Return the share of judged replies that are bad; a reply without a verdict is unknown, never safe."""
    bad = [None if verdict == "unknown" else verdict == "bad" for verdict in result.verdicts]
    return rate(result, name, bad, "lower")


def mean(result: ArmResult, name: str, values: Sequence[float | None], unit: str, better: Better) -> Measurement:
    """Return the mean over cases with a bootstrap interval; None, NaN and infinity count as unknown.

    No value may be below 0, and none with the unit "fraction" above 1.
    """
    table = [value if value is not None and math.isfinite(value) else None for value in values]
    known = [value for value in table if value is not None]
    interval = bootstrap(known, within=(0.0, 1.0 if unit == "fraction" else math.inf))
    return metric(result, name, interval, (len(known), len(table) - len(known)), unit, better, table)
