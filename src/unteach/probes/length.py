"""How long are the replies, and do they end?"""

from unteach.probes.base import ALL_SPLITS, mean, rate
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import Measurement


class LengthProbe:
    """`reply_tokens`: mean number of tokens of a reply, its end included. `cut_rate`: share of replies that the model
    had not ended when they reached the longest length; not measured on protected text, which has no end.

    Unit: tokens, and a fraction. Longer is better, because a model that lost its abilities mostly falls silent; what
    counts is that it stays near the original's. A lower `cut_rate` is better, because nobody has seen how a cut reply
    goes on. Source: own definitions. An untouched model: its own.
    """

    name = "length"
    splits = ALL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        counted = result.reply_tokens
        found = [] if counted is None else [mean(result, "reply_tokens", counted, "tokens", "higher")]
        if result.scenario != "copyright":
            found.append(rate(result, "cut_rate", [case.cut for case in result.cases], "lower"))
        return found


probe = LengthProbe()
