"""How long are the replies?"""

from unteach.probes.base import ALL_SPLITS, mean
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import Measurement


class LengthProbe:
    """`reply_tokens`: mean number of tokens of a reply.

    Unit: tokens. Higher is better, because a model that lost its abilities mostly falls silent; what counts is that it
    stays near the original's. Source: own definition. An untouched model: its own.
    """

    name = "length"
    splits = ALL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        return [mean(result, "reply_tokens", result.reply_tokens, "tokens", "higher")]


probe = LengthProbe()
