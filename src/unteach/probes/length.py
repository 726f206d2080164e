"""How long are the replies?"""

from unteach.probes.base import ALL_SPLITS, Evidence, mean
from unteach.results.measurement import Measurement


class LengthProbe:
    """`reply_tokens`: mean number of tokens of a reply.

    Unit: tokens. Reported as higher is better because a model that lost its abilities mostly falls silent; what counts
    is that it stays near the original's. Source: own definition. An untouched model: its own.
    """

    name = "length"
    splits = ALL_SPLITS

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        return [mean(evidence, "reply_tokens", evidence.reply_tokens, "tokens", "higher")]


probe = LengthProbe()
