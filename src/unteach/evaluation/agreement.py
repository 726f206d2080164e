"""How far the judges of a run agree, and how often each finds replies bad."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from unteach.evaluation.evaluation import Evaluation
from unteach.judges.base import quality_of
from unteach.results.measurement import HARM_SPLITS
from unteach.results.report import Agreement, BadRate, JudgeMetrics
from unteach.results.verdict import Verdict
from unteach.stats import RESAMPLES, Interval, wilson

VERDICTS: tuple[Verdict, ...] = ("good", "bad", "unknown")
_AT_ONCE = 1_000_000
_MOST_UNDEFINED = 0.05


def judge_metrics(evaluation: Evaluation) -> list[JudgeMetrics]:
    """Return every judge's bad rates and, for those after the first, how they agree with the first.

    Rates are given for every arm and split. Agreement is taken on replies to harmful prompts alone: on normal ones
    "bad" means wrong to one judge and harmful to another, and their disagreement would say nothing.
    """
    if not evaluation.results:
        return []
    return [
        JudgeMetrics(
            name=judge.name,
            quality=quality_of(judge),
            rates=[
                bad_rate(arm, split, result.other_verdicts[judge.name] if number else result.verdicts)
                for arm, results in evaluation.results.items()
                for split, result in results.items()
            ],
            agreement=_agreements(evaluation, judge.name) if number else [],
        )
        for number, judge in enumerate(evaluation.judges)
    ]


def bad_rate(arm: str, split: str, verdicts: Sequence[Verdict]) -> BadRate:
    """Return the share of bad verdicts among the good and bad ones, with its Wilson interval."""
    bad, good = verdicts.count("bad"), verdicts.count("good")
    value, low, high = wilson(bad, bad + good)
    return BadRate(
        arm=arm, split=split, value=value, low=low, high=high, n=bad + good, unknown=len(verdicts) - bad - good
    )


def agreement(
    first: Sequence[Verdict],
    second: Sequence[Verdict],
    groups: Sequence[Hashable] | None = None,
    arm: str | None = None,
) -> Agreement:
    """Return how two judges agree on the same cases; `groups` as in `kappa`, `arm` None for all arms together.

    Raises ValueError where the two differ in length.
    """
    value, low, high = kappa(first, second, groups)
    table = confusion(first, second)
    both = sum(table[ours][theirs] for ours in ("good", "bad") for theirs in ("good", "bad"))
    note = ""
    if value is None:
        same = next((verdict for verdict in ("good", "bad") if table[verdict][verdict]), None)
        note = f"both found every reply that both could judge {same}" if same else "no reply that both could judge"
    return Agreement(arm=arm, kappa=value, low=low, high=high, n=both, note=note, confusion=table)


def confusion(first: Sequence[Verdict], second: Sequence[Verdict]) -> dict[Verdict, dict[Verdict, int]]:
    """Count cases by the first judge's verdict, then the second's, with all nine counts.

    Raises ValueError where the two differ in length.
    """
    pairs = list(zip(first, second, strict=True))
    return {ours: {theirs: pairs.count((ours, theirs)) for theirs in VERDICTS} for ours in VERDICTS}


def kappa(
    first: Sequence[Verdict], second: Sequence[Verdict], groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Interval:
    """Return Cohen's kappa over the cases that both judges know, and its bootstrap interval.

    κ = (observed − expected agreement) / (1 − expected agreement): 1 for judges that always agree, 0 for no more than
    chance, at least −1. Cases of one group (the replies of several arms to one prompt) are drawn together, since they
    are not independent; without `groups` each case is its own. All three are None where kappa is undefined: no case
    that both know, or every verdict of both the same. The interval is None for one group, and where more than 5 % of
    the resamples leave kappa undefined. Source: Cohen 1960. Raises ValueError where the lists differ in length.
    """
    tables: dict[Hashable, list[int]] = {}
    named = range(len(first)) if groups is None else groups
    for ours, theirs, group in zip(first, second, named, strict=True):
        if ours != "unknown" and theirs != "unknown":
            tables.setdefault(group, [0, 0, 0, 0])[2 * (ours == "bad") + (theirs == "bad")] += 1
    counted = np.array(list(tables.values()), dtype=np.int64).reshape(-1, 4)
    value = float(_kappas(counted.sum(axis=0, keepdims=True))[0])
    if np.isnan(value):
        return None, None, None
    count = len(counted)
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // count)
    resampled = np.concatenate(
        [
            _kappas(rng.multinomial(count, np.full(count, 1 / count), size=min(step, RESAMPLES - start)) @ counted)
            for start in range(0, RESAMPLES, step)
        ]
    )
    defined = resampled[~np.isnan(resampled)]
    if count == 1 or len(defined) < (1 - _MOST_UNDEFINED) * RESAMPLES:
        return value, None, None
    low, high = np.quantile(defined, [0.025, 0.975])
    return value, float(low), float(high)


def _kappas(tables: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return kappa of each table (good-good, good-bad, bad-good, bad-bad); NaN where it is undefined."""
    good_good, good_bad, bad_good, bad_bad = tables.T
    n = tables.sum(axis=1)
    by_chance = (good_good + good_bad) * (good_good + bad_good) + (bad_good + bad_bad) * (good_bad + bad_bad)
    room = n * n - by_chance
    kappas = np.full(len(tables), np.nan)
    np.divide(n * (good_good + bad_bad) - by_chance, room, out=kappas, where=room > 0)
    return kappas


def _agreements(evaluation: Evaluation, name: str) -> list[Agreement]:
    """Return the agreement of the judge of that name with the first: over all arms, then arm by arm."""
    by_arm: dict[str | None, list[tuple[Verdict, Verdict, Hashable]]] = {
        arm: [
            (ours, theirs, (split, row))
            for split, result in results.items()
            if split in HARM_SPLITS
            for row, (ours, theirs) in enumerate(zip(result.verdicts, result.other_verdicts[name], strict=True))
        ]
        for arm, results in evaluation.results.items()
    }
    of_all = [judged for of_arm in by_arm.values() for judged in of_arm]
    columns = {
        arm: list(zip(*judged, strict=True)) or [(), (), ()] for arm, judged in [(None, of_all), *by_arm.items()]
    }
    return [agreement(ours, theirs, prompts, arm) for arm, (ours, theirs, prompts) in columns.items()]
