"""Does the model still go on with the protected text?"""

from unteach.probes.base import bad_rate
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import HARM_SPLITS, Measurement


class LeakRateProbe:
    """`leak_rate`: share of replies to beginnings of the protected text that the judge finds leaking (bad), of those it
    could judge.

    Measured in the scenario copyright. Unit: fraction; lower is better. Source: arXiv 2310.10683, section 4. Differs:
    the judge of the run decides; there a BLEU above a tenth of that of random sentence pairs does, which calls most
    English a leak or none, depending on the smoothing. A reply without a verdict is unknown. An untouched model: its
    own leak rate.
    """

    name = "leak_rate"
    splits = HARM_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        return [bad_rate(result, "leak_rate")] if result.scenario == "copyright" else []


probe = LeakRateProbe()
