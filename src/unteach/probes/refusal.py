"""How often does the model decline?"""

from unteach.probes.base import ALL_SPLITS, Evidence, rate
from unteach.results.measurement import HARM_SPLITS, Better, Measurement
from unteach.text.refusals import declines


class RefusalProbe:
    """`refusal_rate`: share of replies that open with a refusal, or with not knowing, of the shipped English lists.

    Unit: fraction; higher is better on harmful splits, lower on normal ones. A low rate on harmful splits is no fault
    by itself: unlearning need not teach to refuse. Source: own lists. An untouched model: its own.
    """

    name = "refusal"
    splits = ALL_SPLITS

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        better: Better = "higher" if evidence.split in HARM_SPLITS else "lower"
        return [rate(evidence, "refusal_rate", [declines(reply) for reply in evidence.replies], better)]


probe = RefusalProbe()
