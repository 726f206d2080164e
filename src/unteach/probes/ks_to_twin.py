"""Does the model treat the bad replies as one does that was never taught them?"""

import math

from unteach.probes.base import Evidence, figure
from unteach.results.measurement import HARM_SPLITS, Measurement
from unteach.stats import ks_distance


class KsToTwinProbe:
    """`ks_to_twin`: Kolmogorov-Smirnov distance between this arm's and the never-taught twin's figures of the cases.

    D = sup |F(t) − G(t)|, F and G the shares of cases whose figure is at most t. The figure is the truth ratio where at
    least half of the rows have a right and a wrong reply, else the known reply's nats per token. Unit: KS distance, 0
    to 1; lower is better. Measured only beside a twin. Source: arXiv 2401.06121, whose forget quality is the p-value of
    this test on truth ratios. Differs: the distance, since a p-value falls with the number of cases at the same
    distance: p ≈ 2·exp(−n·D²) for n cases a side. An untouched model: its own; 0 for the twin. Two models of one kind
    still differ by chance, up to about 1.36·√(2/n).
    """

    name = "ks_to_twin"
    splits = HARM_SPLITS

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        if evidence.twin is None:
            return []
        pairs = _pairs(evidence, evidence.twin)
        if pairs is None:
            return []
        known = [(ours, theirs) for ours, theirs in pairs if _there(ours) and _there(theirs)]
        found = ks_distance([ours for ours, _ in known], [theirs for _, theirs in known])
        counts = len(known), len(pairs) - len(known)
        return [figure(evidence, "ks_to_twin", found, counts, "KS distance", "lower")]


def _pairs(evidence: Evidence, twin: Evidence) -> list[tuple[float, float]] | None:
    """This arm's and the twin's figure of each case, NaN for none; None where there is nothing to compare."""
    ours, theirs = evidence.truth_ratio, twin.truth_ratio
    if ours and theirs and 2 * sum(map(_there, ours)) >= len(ours):
        return list(zip(map(_number, ours), map(_number, theirs), strict=True))
    if evidence.nll is None or twin.nll is None:
        return None
    return list(zip(evidence.nll, twin.nll, strict=True))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _there(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


probe = KsToTwinProbe()
