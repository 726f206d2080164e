"""How often does the model decline?"""

from unteach.probes.base import ALL_SPLITS, of_replies, rate
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import HARM_SPLITS, Better, Measurement
from unteach.text.refusals import declines


class RefusalProbe:
    """`refusal_rate`: share of replies that open with a refusal, or with not knowing, of the shipped English lists.

    Unit: fraction; higher is better on harmful splits, lower on normal ones. A low rate on harmful splits is no fault
    by itself: unlearning need not teach to refuse. Source: own lists. An untouched model: its own.
    """

    name = "refusal"
    splits = ALL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        better: Better = "higher" if result.split in HARM_SPLITS else "lower"
        return [rate(result, "refusal_rate", of_replies(result, declines), better)]


probe = RefusalProbe()
