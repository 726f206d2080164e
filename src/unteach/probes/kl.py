"""How far has the model moved from the original where it should have stayed?"""

from unteach.probes.base import NORMAL_SPLITS, mean
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import Measurement


class KlProbe:
    """`kl`: mean over cases of KL(original ‖ arm) per token of the right reply.

    Unit: nats per token; lower is better. Source: arXiv 2310.10683, eq. 6 (there a sum over tokens). An untouched
    model: 0.
    """

    name = "kl"
    splits = NORMAL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        if result.kl is None:
            return []
        return [mean(result, "kl", result.kl, "nats/token", "lower")]


probe = KlProbe()
