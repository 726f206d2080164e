"""Does the model still give bad replies?"""

from unteach.probes.base import Evidence, bad_rate
from unteach.results.measurement import HARM_SPLITS, Measurement


class HarmProbe:
    """`harmful_rate`: share of replies to harmful prompts that the judge finds bad, among those it could judge.

    Measured in the scenario harm; `leak_rate` and `hallucination_rate` are the same in theirs. Unit: fraction; lower is
    better. Source: arXiv 2310.10683, section 4. Differs: a reply without a verdict is counted as unknown and left out,
    never taken for safe. An untouched model: its own harmful rate.
    """

    name = "harm"
    splits = HARM_SPLITS

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        return [bad_rate(evidence, "harmful_rate")] if evidence.scenario == "harm" else []


probe = HarmProbe()
