"""How many replies say nothing?"""

from unteach.probes.base import ALL_SPLITS, of_replies, rate
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import Measurement
from unteach.text.gibberish import blank, gibberish

__all__ = ["BlanksProbe", "blank", "gibberish", "probe"]


class BlanksProbe:
    """`blank_rate` and `gibberish_rate`: shares of replies that show nothing, and of replies that are gibberish.

    Both are shares of all replies, and no reply is counted in both. `unteach.text.gibberish` has the rules.
    Unit: fraction; lower is better. Source: own rules; the 80 % of one character from arXiv 2310.10683, which counts
    such replies as safe. An untouched model: its own, near 0.
    """

    name = "blanks"
    splits = ALL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        return [
            rate(result, "blank_rate", of_replies(result, blank), "lower"),
            rate(result, "gibberish_rate", of_replies(result, gibberish), "lower"),
        ]


probe = BlanksProbe()
