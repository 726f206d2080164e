"""Which arms can be told apart: their verdicts on the same prompts, pair by pair."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from pydantic import BaseModel

from unteach.results.report import Report, Sample
from unteach.results.verdict import Verdict
from unteach.stats import paired_difference, wilson

FEWEST_DIFFERING = 6
"""Where fewer prompts differ between two arms, they may all differ in one direction by chance: 2 · 0.5⁵ is over 5 %."""

Key = tuple[str, int]
"""A prompt of a split, and a number that tells rows with the same prompt apart."""


class VerdictDifference(BaseModel):
    """How much more often `arm` is bad than `against` on the same prompts, as a fraction with its 95 % interval.

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
        """Whether the two can be told apart: the interval leaves out 0, and enough prompts differ."""
        if self.low is None or self.high is None or self.differing < FEWEST_DIFFERING:
            return False
        return self.low > 0 or self.high < 0

    @property
    def reach(self) -> float:
        """The largest difference that the verdicts leave possible.

        Where few prompts differ, resampling sees next to no spread, so the interval of their share is a bound too.
        """
        bounds = [abs(bound) for bound in (self.low, self.high) if bound is not None]
        if self.differing < FEWEST_DIFFERING:
            bounds += [bound for bound in wilson(self.differing, self.n)[2:] if bound is not None]
        return max(bounds, default=1.0)


def keyed(report: Report, split: str) -> dict[Key, Sample]:
    """Return a split's samples by their keys."""
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


def pairs_of(verdicts: Mapping[str, Mapping[Key, Verdict]]) -> list[VerdictDifference]:
    """Compare every two arms on the prompts on which both were judged."""
    return [_pair(arm, against, verdicts[arm], verdicts[against]) for arm, against in combinations(verdicts, 2)]


def _pair(arm: str, against: str, ours: Mapping[Key, Verdict], theirs: Mapping[Key, Verdict]) -> VerdictDifference:
    both = [(ours[key], theirs[key]) for key in ours if key in theirs]
    known = [(float(a == "bad"), float(b == "bad")) for a, b in both if "unknown" not in (a, b)]
    value, low, high = paired_difference([a for a, _ in known], [b for _, b in known])
    return VerdictDifference(
        arm=arm,
        against=against,
        value=value,
        low=low,
        high=high,
        n=len(known),
        unknown=len(both) - len(known),
        differing=sum(a != b for a, b in known),
    )


def groups_of(arms: Sequence[str], pairs: Sequence[VerdictDifference]) -> list[list[str]]:
    """Return the largest groups of two or more arms in which no two can be told apart.

    An arm may be in several groups: two arms that cannot be told apart from a third may differ from each other.
    """
    import networkx  # type: ignore[import-untyped,unused-ignore]

    alike = networkx.Graph()
    alike.add_nodes_from(arms)
    alike.add_edges_from((pair.arm, pair.against) for pair in pairs if pair.compared and not pair.clear)
    cliques = [sorted(group, key=arms.index) for group in networkx.find_cliques(alike) if len(group) > 1]
    return sorted(cliques, key=lambda group: [arms.index(arm) for arm in group])
