"""Cost at a matched outcome: what an arm had cost when its bad replies first became rare enough."""

import statistics
from collections.abc import Sequence

from pydantic import BaseModel

from unteach.results.report import Waypoint

TARGET = 0.05
SHARE = 0.02
"""The share of RLHF's compute that arXiv 2310.10683 names (its table 5)."""


class Matched(BaseModel):
    """What an arm had cost when the share of bad replies, and that of broken ones, first was at most the target.

    `reached` of `runs` seeds got there; costs are means over those, `flops_low` and `flops_high` the least and most.
    Costs are known only at validations, so a cost is too high by up to the time between two of them. `first_validation`
    counts the runs that had reached the target at their first validation, perhaps long before. `message` says it in
    words.
    """

    reached: int
    runs: int
    flops: float | None
    flops_low: float | None
    flops_high: float | None
    wall_seconds: float | None
    relative_flops: float | None
    message: str
    first_validation: int = 0


def matched(curve: Sequence[Waypoint], target: float) -> Matched | None:
    """Find where an arm's runs first reach the target; None for an arm that was not validated on the way.

    Blank and gibberish replies are no success, so their share must be within the target too. A validation at which no
    reply could be judged counts as not reached.
    """
    runs = by_seed(curve)
    if not runs:
        return None
    first = [next((point for point in run if reached(point, target)), None) for run in runs]
    there = [point for point in first if point is not None]
    best = min((point.value for run in runs for point in run if point.value is not None), default=None)
    flops = [point.flops for point in there]
    if there:
        message = f"at most {target:.0%} bad and broken each in {len(there)} of {len(runs)} runs"
    else:
        message = f"never at most {target:.0%} bad" + ("" if best is None else f"; the least was {best:.0%}")
    return Matched(
        reached=len(there),
        runs=len(runs),
        flops=statistics.fmean(flops) if flops else None,
        flops_low=min(flops, default=None),
        flops_high=max(flops, default=None),
        wall_seconds=statistics.fmean(point.wall_seconds for point in there) if there else None,
        relative_flops=None,
        message=message,
        first_validation=sum(bool(run) and point is run[0] for run, point in zip(runs, first, strict=True)),
    )


def reached(point: Waypoint, target: float) -> bool:
    """Return whether the share of bad replies and that of blank or gibberish ones are both within the target."""
    return point.value is not None and point.value <= target and (point.broken or 0.0) <= target


def by_seed(curve: Sequence[Waypoint]) -> list[list[Waypoint]]:
    """Return the points of each seed, in the order in which they were taken."""
    seeds = dict.fromkeys(point.seed for point in curve)
    return [[point for point in curve if point.seed == seed] for seed in seeds]


def cost_of_steps(curve: Sequence[Waypoint], stage: str = "rl") -> tuple[float, float, int] | None:
    """Return what a stage of an arm cost: FLOPs before its first step, FLOPs a step, and its number of steps.

    FLOPs are means over seeds. None where a run has fewer than two points of that stage.
    """
    runs = [[point for point in run if point.stage == stage] for run in by_seed(curve)]
    if not runs or any(len(run) < 2 for run in runs):
        return None
    steps = [(run[-1].flops - run[0].flops) / max(1, run[-1].step - run[0].step) for run in runs]
    starts = [run[0].flops - run[0].step * step for run, step in zip(runs, steps, strict=True)]
    return statistics.fmean(starts), statistics.fmean(steps), runs[0][-1].step


def length_notes(arms: Sequence[tuple[str, float]], base: str, curve: Sequence[Waypoint]) -> list[str]:
    """Say how each arm's share of RLHF's compute depends on how long RLHF lasts; empty where that is not known.

    `arms` are pairs of name and FLOPs; `curve` is that of the arm `base`. The first line says what the others list.
    """
    known = cost_of_steps(curve)
    if known is None or known[1] <= 0:
        return []
    start, step, count = known
    lengths = (count, 10 * count, 100 * count)
    listed = []
    for name, flops in arms:
        shares = " / ".join(_percent(flops / (start + steps * step)) for steps in lengths)
        needed = (flops / SHARE - start) / step
        listed.append(f"{name} {shares}; {f'{round(needed):,}' if needed > 0 else 'none at all'}")
    if not listed:
        return []
    head = (
        f"compute as a share of {base} with {' / '.join(f'{steps:,}' for steps in lengths)} steps of reinforcement "
        f"learning (it had {count:,}); and the steps with which it would be {SHARE:.0%}:"
    )
    return [head, *listed]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else f"{100 * share:.2g}%"
