"""Compare the arms of several runs: their rates, what each cost, and which cannot be told apart."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from unteach.comparison.comparable import differences, original_of, remarks, same_replies
from unteach.comparison.matched import TARGET, Matched, length_notes, matched
from unteach.comparison.pairs import VerdictDifference, groups_of, pairs_of, verdicts_of
from unteach.errors import ConfigError, nearest
from unteach.results.arms import ORIGINAL, REMINDED, RETRAINED
from unteach.results.measurement import Measurement
from unteach.results.report import Cost, Report, Waypoint
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert_line

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
"""The rates that are compared, with their metric and split. BAD is the scenario's bad rate; KEPT is `right_rate` where
every arm has one, else `kept_rate`."""


class Rate(BaseModel):
    """One rate of an arm: a fraction with its 95 % interval over `n` cases, averaged over so many `seeds`."""

    unit: ClassVar[str] = "fraction"
    name: str
    split: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unknown: int
    seeds: int = 1


class ArmCost(BaseModel):
    """What preparing and training an arm cost, evaluation left out; with several seeds, the mean over them.

    `relative_flops` and `relative_seconds` are shares of another arm's cost; `relative_low` and `relative_high` are the
    least and the largest share when each seed is compared with the same seed of that arm. `uncounted` names the stages
    whose tokens were not counted: where there is one, `flops` is a lower bound.
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


class ComparedArm(BaseModel):
    """One arm of a run: its rates by the names of `METRICS`, and its cost, None where nothing was done to it.

    `curve` is how it behaved on validation prompts while it was trained, `matched` what it cost to reach the target.
    """

    name: str
    run: str
    arm: str
    rates: dict[str, Rate | None]
    cost: ArmCost | None
    curve: list[Waypoint] = []
    matched: Matched | None = None


class Comparison(BaseModel):
    """Several runs side by side. `pairs` and `groups` are about `split`; see `VerdictDifference` and `groups_of`.

    `target` is the share of bad replies at which costs are matched. `length_notes` say how shares of RLHF's cost depend
    on its length. `failed` names the runs of a study that gave no result.
    """

    scenario: str
    model: str
    runs: list[str]
    relative_to: str | None
    arms: list[ComparedArm]
    split: str = PAIRED_SPLIT
    pairs: list[VerdictDifference]
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
) -> Comparison:
    """Read the reports of two or more run directories and compare their arms.

    Costs are relative to the arm `relative_to` or, where it is not given, to `rlhf` if there is one. Costs are matched
    where the share of bad replies to validation prompts is at most `target`. `labels` maps a run directory to the name
    of its arm; where the run measured the arm without and with a reminder, the name is that of the arm with it. `alone`
    allows a single run.

    Raises DataError for a directory whose report is missing or cannot be read; ConfigError for fewer than two runs, a
    run given twice, a study, an unknown arm and, unless `anyway`, runs that are not about the same thing.
    """
    reports = _read(runs, 1 if alone else 2)
    notes = _check_runs(reports, anyway)
    arms = _arms(reports, labels or {}, target)
    base = _base(arms, relative_to)
    if base:
        _add_shares(arms, base)
    of_run = dict(reports)
    verdicts = {arm.name: verdicts_of(of_run[arm.run], arm.arm, PAIRED_SPLIT) for arm in arms}
    pairs = pairs_of({name: found for name, found in verdicts.items() if found})
    first = reports[0][1]
    return Comparison(
        scenario=first.scenario,
        model=original_of(first),
        runs=[run for run, _ in reports],
        relative_to=base.name if base else None,
        arms=arms,
        pairs=pairs,
        groups=groups_of([arm.name for arm in arms], pairs),
        notes=[*notes, *_notes_on_arms(arms)],
        target=target,
        length_notes=length_notes(_full_costs(arms, base), base.name, base.curve) if base else [],
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
        if report.is_study:
            raise ConfigError(f"{run}: a study compares its own arms already; name single runs")
        if not report.measurements:
            raise ConfigError(f"{run}: nothing was measured in it; run it without --skip-evaluation")
    return reports


def _check_runs(reports: Sequence[tuple[str, Report]], anyway: bool) -> list[str]:
    """Compare every run's subject with the first run's; return notes. Raises ConfigError for different subjects."""
    first, notes = reports[0], []
    for run, report in reports[1:]:
        both = f"{first[0]} and {run}"
        if found := differences(first[1], report):
            told = f"{both} are not about the same thing: {'; '.join(found)}"
            if not anyway:
                raise ConfigError(f"{told}. Compare runs over the same files and seed, or add --anyway")
            notes.append(f"{told}. They were compared nevertheless (--anyway)")
        notes += [f"{both}: {told}" for told in remarks(first[1], report)]
    return notes


def _arms(reports: Sequence[tuple[str, Report]], labels: Mapping[str, str], target: float) -> list[ComparedArm]:
    """Collect the arms of all runs; the original and the retrained model once, from the first run that has them."""
    found: list[tuple[str, Report, str]] = []
    for once in (ORIGINAL, RETRAINED):
        found += [(run, report, once) for run, report in reports if once in report.arms()][:1]
    tested: list[tuple[str, Report, str]] = []
    for run, report in reports:
        for arm in report.arms():
            before = [other for _, other, known in tested if known == arm == ORIGINAL + REMINDED]
            if arm not in (ORIGINAL, RETRAINED) and not any(same_replies(other, report, arm) for other in before):
                tested.append((run, report, arm))
    tested.sort(key=lambda entry: not entry[2].startswith(ORIGINAL))  # the original with a reminder stands by itself
    found = [*found[:1], *tested, *found[1:]] if found else tested
    names = _names([(run, arm) for run, _, arm in found], labels)
    kept = "right_rate" if all(_has(report, "right_rate", arm) for _, report, arm in found) else "kept_rate"
    arms = []
    for name, (run, report, arm) in zip(names, found, strict=True):
        curve = [point for point in report.curve if point.arm == arm]
        arms.append(
            ComparedArm(
                name=name,
                run=run,
                arm=arm,
                rates=_rates(report, arm, kept),
                cost=_cost(report, arm),
                curve=curve,
                matched=matched(curve, target),
            )
        )
    return arms


def _names(listed: Sequence[tuple[str, str]], labels: Mapping[str, str]) -> list[str]:
    """Name each (run, arm): by its run's label or, without one, by the arm, the run's directory, or its whole path.

    Each longer form is used only where shorter ones are not unique.
    """
    shared = {arm for arm, count in Counter(arm for _, arm in listed).items() if count > 1}
    several = {run for run, count in Counter(run for run, arm in listed if arm in shared).items() if count > 1}
    short = []
    for run, arm in listed:
        directory = Path(run).resolve().name
        short.append(arm if arm not in shared else f"{directory}: {arm}" if run in several else directory)
    counts = Counter(short)
    names = []
    for name, (run, arm) in zip(short, listed, strict=True):
        trained = arm.removesuffix(REMINDED) not in (ORIGINAL, RETRAINED)
        if trained and run in labels:
            without = (run, arm + REMINDED) in listed
            names.append(f"{labels[run]}, no reminder" if without else labels[run])
        elif counts[name] > 1 and arm not in (ORIGINAL, RETRAINED):
            names.append(f"{Path(run).resolve()}: {arm}")
        else:
            names.append(name)
    return names


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
    """Add up an arm's stages and those that prepared the original; None for an arm that nothing was done to."""
    trained = arm.removesuffix(REMINDED)
    own = [cost for cost in report.cost if cost.arm == trained and not cost.is_evaluation]
    if trained in (ORIGINAL, RETRAINED) or not own:
        return None
    stages = [cost for cost in report.cost if cost.arm == ORIGINAL and not cost.is_evaluation] + own
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
    """Add up the FLOPs of each seed; an empty list where a stage does not have them."""
    if seeds < 2 or any(len(cost.seed_flops) != seeds for cost in stages):
        return []
    return [sum(cost.seed_flops[seed] or 0.0 for cost in stages) for seed in range(seeds)]


def _base(arms: Sequence[ComparedArm], name: str | None) -> ComparedArm | None:
    """Find the arm that costs are relative to. Raises ConfigError where it is unknown or has no cost."""
    if name is None:
        found = [arm for arm in arms if arm.arm == "rlhf" and arm.cost]
        return found[0] if len(found) == 1 else None
    names = [arm.name for arm in arms]
    if name not in names:
        near = nearest(name, names) or f"; there are {', '.join(inert_line(known, 60) for known in names)}"
        raise ConfigError(f"--relative-to {name}: no such arm{near}")
    base = arms[names.index(name)]
    if base.cost is None:
        raise ConfigError(f"--relative-to {name}: nothing was trained in it, so it has no cost; name another arm")
    return base


def _add_shares(arms: Sequence[ComparedArm], base: ComparedArm) -> None:
    """Add to every cost its share of the base's; no share of FLOPs where one of the two was not counted whole."""
    for arm in arms:
        if arm.cost and base.cost:
            counted = not arm.cost.uncounted and not base.cost.uncounted
            arm.cost.relative_flops = _share(arm.cost.flops, base.cost.flops) if counted else None
            arm.cost.relative_seconds = _share(arm.cost.wall_seconds, base.cost.wall_seconds)
            ours, theirs = arm.cost.seed_flops, base.cost.seed_flops
            if counted and ours and len(ours) == len(theirs) and all(theirs):
                shares = [mine / other for mine, other in zip(ours, theirs, strict=True)]
                arm.cost.relative_low, arm.cost.relative_high = min(shares), max(shares)
        if arm.matched and base.matched:
            arm.matched.relative_flops = _share(arm.matched.flops, base.matched.flops)


def _full_costs(arms: Sequence[ComparedArm], base: ComparedArm) -> list[tuple[str, float]]:
    """Return name and FLOPs of each other arm that reaches the target and whose cost was counted whole."""
    return [
        (arm.name, arm.cost.flops)
        for arm in arms
        if arm is not base and arm.cost and arm.cost.flops and not arm.cost.uncounted
        if arm.matched and arm.matched.reached
    ]


def _share(value: float | None, of: float | None) -> float | None:
    return _finite(value / of) if value is not None and of is not None and of > 0 else None


def _notes_on_arms(arms: Sequence[ComparedArm]) -> list[str]:
    """Say which arms' cost was not counted whole, and which arms rest on several seeds."""
    notes = []
    of_seeds: dict[int, list[str]] = {}
    for arm in arms:
        if arm.cost and arm.cost.uncounted:
            stages = ", ".join(arm.cost.uncounted)
            notes.append(f"{arm.name}: no tokens were counted in {stages}, so its FLOPs are a lower bound")
        seeds = max((rate.seeds for rate in arm.rates.values() if rate), default=1)
        of_seeds.setdefault(seeds, []).append(arm.name)
    for seeds, names in of_seeds.items():
        if seeds > 1:
            who = "all arms" if len(of_seeds) == 1 else ", ".join(names)
            notes.append(
                f"{who}: rates and cost are means over {seeds} seeds, and n counts the prompts of all seeds; intervals "
                "are about seeds or, where all seeds agree, about the prompts of one; only the replies of the first "
                "seed are compared in pairs"
            )
    return notes


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
