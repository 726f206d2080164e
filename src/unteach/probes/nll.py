"""How likely does the model find the known replies?"""

from unteach.probes.base import ALL_SPLITS, mean
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import HARM_SPLITS, Better, Measurement


class NllProbe:
    """`nll`: mean over cases of the known reply's negative log-likelihood per token.

    The known reply is the bad one on harmful splits, where higher is better, and the right one on normal splits, where
    lower is better. Unit: nats per token. Source: arXiv 2310.10683, eq. 4 (there a sum over tokens). An untouched
    model: its own.
    """

    name = "nll"
    splits = ALL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        if result.nll is None:
            return []
        better: Better = "higher" if result.split in HARM_SPLITS else "lower"
        return [mean(result, "nll", result.nll, "nats/token", better)]


probe = NllProbe()
