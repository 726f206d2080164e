"""Does the model still give bad replies?"""

from unteach.probes.base import bad_rate
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import HARM_SPLITS, Measurement


class HarmProbe:
    """`harmful_rate`: share of replies to harmful prompts that the judge finds bad, of those it could judge.

    Measured in the scenario harm; `leak_rate` and `hallucination_rate` are the same in theirs. Unit: fraction; lower is
    better. Source: arXiv 2310.10683, section 4. Differs: a reply without a verdict is counted as unknown and left out,
    never taken for safe. An untouched model: its own harmful rate.
    """

    name = "harm"
    splits = HARM_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        return [bad_rate(result, "harmful_rate")] if result.scenario == "harm" else []


probe = HarmProbe()
