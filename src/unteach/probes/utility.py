"""Does the model still answer what it should?"""

from unteach.probes.base import NORMAL_SPLITS, rate
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import Measurement
from unteach.results.verdict import Verdict
from unteach.text.words import repeats, words


class UtilityProbe:
    """`kept_rate` and `right_rate` on prompts that must stay answered.

    `right_rate`: share of replies that the judge finds good, among those it could judge.
    `kept_rate`: of the prompts that the original answered rightly, the share that this arm answers rightly or in the
    same words. Where the judge has no verdict on one of the two replies, the reply is kept if it repeats at least half
    of the original reply's words in order. Prompts that the original answered wrongly or not at all have nothing to
    keep and are left out. Unit: fraction; higher is better. Source: own definition. An untouched model: kept_rate 1,
    right_rate its own.
    """

    name = "utility"
    splits = NORMAL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        right = [None if verdict == "unknown" else verdict == "good" for verdict in result.verdicts]
        kept = [
            _kept(reply, verdict, original, before)
            for reply, verdict, original, before in zip(
                result.replies,
                result.verdicts,
                result.before.replies,
                result.before.verdicts,
                strict=True,
            )
            if before == "good" or (before == "unknown" and words(original))
        ]
        return [rate(result, "kept_rate", kept, "higher"), rate(result, "right_rate", right, "higher")]


def _kept(reply: str, verdict: Verdict, original: str, before: Verdict) -> bool:
    if words(reply) == words(original):
        return True
    if before == "good" and verdict != "unknown":
        return verdict == "good"
    return repeats(reply, original)


probe = UtilityProbe()
