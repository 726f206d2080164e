"""How far has the model moved from the original where it should have stayed?"""

from unteach.probes.base import NORMAL_SPLITS, Evidence, mean
from unteach.results.measurement import Measurement


class KlProbe:
    """`kl`: mean over cases of KL(original ‖ arm) per token of the right reply.

    Unit: nats per token; lower is better. Source: arXiv 2310.10683, eq. 6 (there a sum over tokens). An untouched
    model: 0.
    """

    name = "kl"
    splits = NORMAL_SPLITS

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        if evidence.kl is None:
            return []
        return [mean(evidence, "kl", evidence.kl, "nats/token", "lower")]


probe = KlProbe()
