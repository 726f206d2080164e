"""Which arms can be told apart: their verdicts on the same prompts, pair by pair."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from pydantic import BaseModel

from unteach.results.report import Report, Sample
from unteach.results.verdict import Verdict
from unteach.stats import paired_difference, wilson

FEWEST_DIFFERING = 6
"""With fewer prompts on which two arms differ, that all went one way may be chance: 2 · 0.5⁵ is over 5 %."""

Key = tuple[str, int]
"""A prompt of a split, and which of the rows with this prompt it is."""


class Pair(BaseModel):
    """How much more often `arm` is bad than `against` on the same prompts, as a fraction, with its 95 % interval.

    `n` counts the prompts on which both have a verdict, `unknown` those on which one has none, `differing` those on
    which one is bad and the other good.
    """

    arm: str
    against: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unknown: int
    differing: int

    @property
    def compared(self) -> bool:
        """Whether there were enough prompts for an interval."""
        return self.low is not None and self.high is not None

    @property
    def clear(self) -> bool:
        """Whether the two are told apart: the interval leaves out 0, and enough prompts differ for that to count."""
        if self.low is None or self.high is None or self.differing < FEWEST_DIFFERING:
            return False
        return self.low > 0 or self.high < 0

    @property
    def reach(self) -> float:
        """How large a difference the verdicts leave room for.

        Where next to no prompt differs, resampling sees no spread, and the share of prompts that differ bounds it.
        """
        bounds = [abs(bound) for bound in (self.low, self.high) if bound is not None]
        if self.differing < FEWEST_DIFFERING:
            bounds += [bound for bound in wilson(self.differing, self.n)[2:] if bound is not None]
        return max(bounds, default=1.0)


def keyed(report: Report, split: str) -> dict[Key, Sample]:
    """Return a split's samples by their prompt; a prompt that comes again gets a number."""
    seen: Counter[str] = Counter()
    found = {}
    for sample in report.samples:
        if sample.split == split:
            found[sample.prompt, seen[sample.prompt]] = sample
            seen[sample.prompt] += 1
    return found


def verdicts_of(report: Report, arm: str, split: str) -> dict[Key, Verdict]:
    """Return the verdicts on an arm's replies on a split, by prompt."""
    return {key: sample.verdicts[arm] for key, sample in keyed(report, split).items() if arm in sample.verdicts}


def pairs_of(verdicts: Mapping[str, Mapping[Key, Verdict]]) -> list[Pair]:
    """Compare every two arms on the prompts that both were judged on."""
    return [_pair(arm, against, verdicts[arm], verdicts[against]) for arm, against in combinations(verdicts, 2)]


def _pair(arm: str, against: str, ours: Mapping[Key, Verdict], theirs: Mapping[Key, Verdict]) -> Pair:
    both = [(ours[key], theirs[key]) for key in ours if key in theirs]
    known = [(float(a == "bad"), float(b == "bad")) for a, b in both if "unknown" not in (a, b)]
    value, low, high = paired_difference([a for a, _ in known], [b for _, b in known])
    return Pair(
        arm=arm,
        against=against,
        value=value,
        low=low,
        high=high,
        n=len(known),
        unknown=len(both) - len(known),
        differing=sum(a != b for a, b in known),
    )


def groups_of(arms: Sequence[str], pairs: Sequence[Pair]) -> list[list[str]]:
    """Return the largest groups of arms of which no two are told apart, two arms or more each.

    An arm may be in several: what cannot be told apart from two others does not make those two alike.
    """
    alike: dict[str, set[str]] = {arm: set() for arm in arms}
    for pair in pairs:
        if pair.compared and not pair.clear:
            alike[pair.arm].add(pair.against)
            alike[pair.against].add(pair.arm)
    found: list[set[str]] = []
    _grow(set(), set(arms), set(), alike, found)
    places = {arm: place for place, arm in enumerate(arms)}
    listed = [sorted(group, key=places.__getitem__) for group in found if len(group) > 1]
    return sorted(listed, key=lambda group: [places[arm] for arm in group])


def _grow(
    group: set[str], candidates: set[str], done: set[str], alike: Mapping[str, set[str]], found: list[set[str]]
) -> None:
    """Add every group that this one can grow to and that can grow no further (Bron and Kerbosch, with a pivot)."""
    if not candidates and not done:
        found.append(group)
        return
    pivot = max(sorted(candidates | done), key=lambda arm: len(alike[arm] & candidates))
    for arm in sorted(candidates - alike[pivot]):
        _grow(group | {arm}, candidates & alike[arm], done & alike[arm], alike, found)
        candidates = candidates - {arm}
        done = done | {arm}
