"""Lay the arms of several runs beside each other: rates, what each cost, and which cannot be told apart."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from unteach.comparison.comparable import ORIGINAL, differences, original_of, remarks, same_replies
from unteach.comparison.matched import TARGET, Matched, length_notes, matched
from unteach.comparison.pairs import Pair, groups_of, pairs_of, verdicts_of
from unteach.errors import ConfigError, nearest
from unteach.results.arms import REMINDED
from unteach.results.cost import is_evaluation
from unteach.results.measurement import Measurement
from unteach.results.report import Cost, Report, Waypoint
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert_line

RETRAINED = "retrained"
PAIRED_SPLIT = "unseen"
BAD, KEPT = "bad", "kept"
METRICS: dict[str, tuple[str, str]] = {
    "bad_seen": (BAD, "seen"),
    "bad_unseen": (BAD, "unseen"),
    "bad_unseen_concept": (BAD, "unseen_concept"),
    "blank_unseen": ("blank_rate", "unseen"),
    "gibberish_unseen": ("gibberish_rate", "unseen"),
    "kept_normal": (KEPT, "normal"),
    "refusal_lookalike": ("refusal_rate", "lookalike"),
}
"""What is compared: by our name for it, the measurement and its split. BAD is the rate of the scenario, KEPT is
`right_rate` where every arm has one, else `kept_rate`."""


class Rate(BaseModel):
    """One rate of an arm: a fraction with its 95 % interval, over `n` cases; `seeds` says how many runs it averages."""

    name: str
    split: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unknown: int
    seeds: int = 1


class ArmCost(BaseModel):
    """What an arm cost, preparation and training, checking left out; of several seeds, the mean of one.

    `relative_flops` and `relative_seconds` are shares of another arm's, `relative_low` and `relative_high` the least
    and most share of a seed in the same seed of that arm. `uncounted` are stages that took time and have no tokens on
    their cost: with one of them, `flops` is only the least that it can be.
    """

    flops: float | None
    wall_seconds: float | None
    stages: list[str]
    uncounted: list[str]
    seed_flops: list[float] = []
    relative_flops: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    relative_seconds: float | None = None


class Row(BaseModel):
    """One arm: of which run it is, its rates by the names of `METRICS`, and its cost, None where it has none.

    `curve` is how it behaved on validation prompts while it was trained, `matched` what it cost to reach the target.
    """

    name: str
    run: str
    arm: str
    rates: dict[str, Rate | None]
    cost: ArmCost | None
    curve: list[Waypoint] = []
    matched: Matched | None = None


class Compared(BaseModel):
    """Several runs beside each other. `pairs` and `groups` are about `split`; see `Pair` and `groups_of`.

    `target` is the share of bad replies at which costs are matched; `length_notes` say how shares of RLHF's cost depend
    on its length; `failed` are runs of a study that came to no result.
    """

    scenario: str
    model: str
    runs: list[str]
    relative_to: str | None
    rows: list[Row]
    split: str = PAIRED_SPLIT
    pairs: list[Pair]
    groups: list[list[str]]
    notes: list[str]
    target: float = TARGET
    length_notes: list[str] = []
    failed: list[str] = []


def compare(
    runs: Sequence[str | Path],
    *,
    relative_to: str | None = None,
    anyway: bool = False,
    target: float = TARGET,
    labels: Mapping[str, str] | None = None,
    alone: bool = False,
) -> Compared:
    """Read the reports of two or more run directories and lay their arms beside each other.

    Costs are relative to the arm `relative_to`; without it, to `rlhf` where there is one. Costs are matched where the
    share of bad replies to validation prompts is at most `target`. `labels` names a run's arm by its directory; of a
    run whose arm is measured without and with a reminder, the arm with it. `alone` allows a single run.

    Raises DataError for a directory without a report that can be read; ConfigError for fewer than two runs, a run given
    twice, a study, an unknown arm, and for runs that are not about the same thing, which `anyway` lets pass.
    """
    reports = _read(runs, 1 if alone else 2)
    notes = _checked(reports, anyway)
    rows = _rows(reports, labels or {}, target)
    relative = _relative_to(rows, relative_to)
    _share_cost(rows, relative)
    of_run = dict(reports)
    verdicts = {row.name: verdicts_of(of_run[row.run], row.arm, PAIRED_SPLIT) for row in rows}
    pairs = pairs_of({name: found for name, found in verdicts.items() if found})
    first = reports[0][1]
    return Compared(
        scenario=first.scenario,
        model=original_of(first),
        runs=[run for run, _ in reports],
        relative_to=relative.name if relative else None,
        rows=rows,
        pairs=pairs,
        groups=groups_of([row.name for row in rows], pairs),
        notes=[*notes, *_notes_of_metrics(rows)],
        target=target,
        length_notes=length_notes(_full_costs(rows, relative), relative.name, relative.curve) if relative else [],
    )


def _read(runs: Sequence[str | Path], least: int) -> list[tuple[str, Report]]:
    if len(runs) < least:
        what = f"{runs[0]} alone: nothing to compare it with" if runs else "no runs"
        raise ConfigError(f"{what}; name two run directories or more")
    places = Counter(Path(run).resolve() for run in runs)
    twice = next((run for run in runs if places[Path(run).resolve()] > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice}: given twice; name each run once")
    reports = [(str(run), Report.read(run)) for run in runs]
    known: dict[str, str] = {}
    for run, report in reports:
        content = report.model_dump_json(exclude={"weights", "command"})
        if content in known:
            raise ConfigError(f"{known[content]} and {run} hold the same run; name each run once")
        if any(cost.wall_seconds for cost in report.cost):  # two runs never take the same time
            known[content] = run
        if report.method == "mistakes-study":
            raise ConfigError(f"{run}: a study compares its own arms already; name single runs")
        if not report.measurements:
            raise ConfigError(f"{run}: nothing was measured in it; run it without --skip-evaluation")
    return reports


def _checked(reports: Sequence[tuple[str, Report]], anyway: bool) -> list[str]:
    """Hold every run against the first; returns notes. Raises ConfigError for runs about different things."""
    first, notes = reports[0], []
    for run, report in reports[1:]:
        both = f"{first[0]} and {run}"
        if found := differences(first[1], report):
            told = f"{both} are not about the same thing: {'; '.join(found)}"
            if not anyway:
                raise ConfigError(f"{told}. Compare runs over the same files and seed, or add --anyway")
            notes.append(f"{told}. They were compared all the same (--anyway)")
        notes += [f"{both}: {told}" for told in remarks(first[1], report)]
    return notes


def _rows(reports: Sequence[tuple[str, Report]], labels: Mapping[str, str], target: float) -> list[Row]:
    """Make one row an arm; the original and the retrained model once, from the first run that has them."""
    found: list[tuple[str, Report, str]] = []
    for once in (ORIGINAL, RETRAINED):
        found += [(run, report, once) for run, report in reports if once in report.arms()][:1]
    tested: list[tuple[str, Report, str]] = []
    for run, report in reports:
        for arm in report.arms():
            before = [other for _, other, known in tested if known == arm == ORIGINAL + REMINDED]
            if arm not in (ORIGINAL, RETRAINED) and not any(same_replies(other, report, arm) for other in before):
                tested.append((run, report, arm))
    tested.sort(key=lambda row: not row[2].startswith(ORIGINAL))  # the original with a reminder stands by itself
    found = [*found[:1], *tested, *found[1:]] if found else tested
    names = _labelled(_names([(run, arm) for run, _, arm in found]), [(run, arm) for run, _, arm in found], labels)
    kept = "right_rate" if all(_has(report, "right_rate", arm) for _, report, arm in found) else "kept_rate"
    rows = []
    for name, (run, report, arm) in zip(names, found, strict=True):
        curve = [point for point in report.curve if point.arm == arm]
        row = Row(name=name, run=run, arm=arm, rates=_rates(report, arm, kept), cost=_cost(report, arm), curve=curve)
        rows.append(row.model_copy(update={"matched": matched(curve, target)}))
    return rows


def _labelled(names: list[str], listed: Sequence[tuple[str, str]], labels: Mapping[str, str]) -> list[str]:
    """Replace the names of arms whose runs have a label."""
    found = []
    for name, (run, arm) in zip(names, listed, strict=True):
        label = labels.get(run) if arm.removesuffix(REMINDED) not in (ORIGINAL, RETRAINED) else None
        reminded = {other for where, other in listed if where == run and other.endswith(REMINDED)}
        without = label and arm + REMINDED in reminded
        found.append(name if label is None else f"{label}, no reminder" if without else label)
    return found


def _names(listed: Sequence[tuple[str, str]]) -> list[str]:
    """Name each arm by itself; where that is not enough by its run's directory too, then by the whole path."""
    shared = {arm for arm, count in Counter(arm for _, arm in listed).items() if count > 1}
    several = {run for run, count in Counter(run for run, arm in listed if arm in shared).items() if count > 1}
    names = []
    for run, arm in listed:
        directory = Path(run).resolve().name
        names.append(arm if arm not in shared else f"{directory}: {arm}" if run in several else directory)
    counts = Counter(names)
    whole = [f"{Path(run).resolve()}: {arm}" for run, arm in listed]
    return [
        longer if counts[name] > 1 and arm not in (ORIGINAL, RETRAINED) else name
        for name, longer, (_, arm) in zip(names, whole, listed, strict=True)
    ]


def _has(report: Report, name: str, arm: str) -> bool:
    metric = report.measured(name, "normal", arm)
    return metric is not None and metric.value is not None


def _rates(report: Report, arm: str, kept: str) -> dict[str, Rate | None]:
    special = {BAD: bad_rate_of(report.scenario), KEPT: kept}
    found: dict[str, Rate | None] = {}
    for key, (measure, split) in METRICS.items():
        name = special.get(measure, measure)
        metric = report.measured(name, split, arm)
        found[key] = _rate(metric) if metric else None
    return found


def _rate(metric: Measurement) -> Rate:
    return Rate(
        name=metric.name,
        split=metric.split,
        value=_finite(metric.value),
        low=_finite(metric.low),
        high=_finite(metric.high),
        n=metric.n,
        unknown=metric.unknown,
        seeds=len(metric.seeds or [0]),
    )


def _cost(report: Report, arm: str) -> ArmCost | None:
    """Add up an arm's stages and what was prepared with the original; None for an arm that nothing was done to."""
    trained = arm.removesuffix(REMINDED)
    own = [cost for cost in report.cost if cost.arm == trained and not is_evaluation(cost)]
    if trained in (ORIGINAL, RETRAINED) or not own:
        return None
    stages = [cost for cost in report.cost if cost.arm == ORIGINAL and not is_evaluation(cost)] + own
    seeds = max((len(metric.seeds or [0]) for metric in report.measurements), default=1)
    flops = [value for value in (_finite(cost.flops) for cost in stages) if value is not None]
    seconds = [_finite(cost.wall_seconds) for cost in stages]
    timed = [value for value in seconds if value is not None]
    return ArmCost(
        flops=sum(flops) / seeds if any(flops) else None,
        wall_seconds=sum(timed) / seeds if len(timed) == len(seconds) else None,
        stages=[cost.stage for cost in stages],
        uncounted=[cost.stage for cost in stages if not _finite(cost.flops)],
        seed_flops=_by_seed(stages, seeds),
    )


def _by_seed(stages: Sequence[Cost], seeds: int) -> list[float]:
    """Add up each seed's FLOPs; nothing where a stage does not tell them."""
    if seeds < 2 or any(len(cost.seed_flops) != seeds for cost in stages):
        return []
    return [sum(cost.seed_flops[seed] or 0.0 for cost in stages) for seed in range(seeds)]


def _relative_to(rows: Sequence[Row], name: str | None) -> Row | None:
    """Find the arm that costs are relative to. Raises ConfigError where it is unknown or has no cost."""
    if name is None:
        found = [row for row in rows if row.arm == "rlhf" and row.cost]
        return found[0] if len(found) == 1 else None
    names = [row.name for row in rows]
    if name not in names:
        near = nearest(name, names) or f"; there are {', '.join(inert_line(known, 60) for known in names)}"
        raise ConfigError(f"--relative-to {name}: no such arm{near}")
    row = rows[names.index(name)]
    if row.cost is None:
        raise ConfigError(f"--relative-to {name}: nothing was trained in it, so it has no cost; name another arm")
    return row


def _share_cost(rows: Sequence[Row], base: Row | None) -> None:
    """Add every cost's share of the base's; none of the FLOPs where one of the two was not counted whole."""
    for row in rows:
        if row.cost and base and base.cost:
            counted = not row.cost.uncounted and not base.cost.uncounted
            row.cost.relative_flops = _share(row.cost.flops, base.cost.flops) if counted else None
            row.cost.relative_seconds = _share(row.cost.wall_seconds, base.cost.wall_seconds)
            ours, theirs = row.cost.seed_flops, base.cost.seed_flops
            if counted and ours and len(ours) == len(theirs) and all(theirs):
                shares = [mine / other for mine, other in zip(ours, theirs, strict=True)]
                row.cost.relative_low, row.cost.relative_high = min(shares), max(shares)
        if row.matched and base and base.matched:
            row.matched.relative_flops = _share(row.matched.flops, base.matched.flops)


def _full_costs(rows: Sequence[Row], base: Row) -> list[tuple[str, float]]:
    """Return what each other arm took that reaches the target and was counted whole."""
    return [
        (row.name, row.cost.flops)
        for row in rows
        if row is not base and row.cost and row.cost.flops and not row.cost.uncounted
        if row.matched and row.matched.reached
    ]


def _share(value: float | None, of: float | None) -> float | None:
    return _finite(value / of) if value is not None and of is not None and of > 0 else None


def _notes_of_metrics(rows: Sequence[Row]) -> list[str]:
    """Say of which arms the cost is not whole, and which rest on several seeds."""
    notes = []
    of_seeds: dict[int, list[str]] = {}
    for row in rows:
        if row.cost and row.cost.uncounted:
            stages = ", ".join(row.cost.uncounted)
            notes.append(f"{row.name}: no tokens were counted in {stages}, so its FLOPs are the least it can have")
        seeds = max((rate.seeds for rate in row.rates.values() if rate), default=1)
        of_seeds.setdefault(seeds, []).append(row.name)
    for seeds, names in of_seeds.items():
        if seeds > 1:
            who = "all arms" if len(of_seeds) == 1 else ", ".join(names)
            notes.append(
                f"{who}: rates and cost are means over {seeds} seeds and n counts the prompts of all; intervals are "
                "about seeds, or, where all seeds agree, about the prompts of one; the first seed's replies alone are "
                "compared in pairs"
            )
    return notes


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
