"""Would the original model have written such replies?"""

import math

from unteach.probes.base import ALL_SPLITS, mean
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import Measurement
from unteach.text.gibberish import repeated_character


class FluencyProbe:
    """`fluency`: perplexity of this arm's replies under the original model.

    It is exp of the mean over replies of nats per token. A blank reply has none, and for a text that is over
    80 % one character it is not meaningful (the model is very sure of the next repetition): both are left out
    and counted as unknown. Unit: perplexity, at least 1; lower is better, but read it beside the gibberish
    rate, since loops are likely too. Source: arXiv 2310.10683, section 4. An untouched model: its own.
    """

    name = "fluency"
    splits = ALL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        if result.reply_nll is None:
            return []
        meaningful = [
            None if repeated_character(reply) else nats
            for reply, nats in zip(result.replies, result.reply_nll, strict=True)
        ]
        nats = mean(result, "fluency", meaningful, "perplexity", "lower")
        return [
            nats.model_copy(
                update={field: _perplexity(getattr(nats, field)) for field in ("value", "low", "high")}
                | {"values": ()}  # a difference of nats is no difference of perplexities
            )
        ]


def _perplexity(nats: float | None) -> float | None:
    # Past exp(700) a float overflows; such a text is as unlikely as can be said.
    return None if nats is None else math.exp(min(nats, 700.0))


probe = FluencyProbe()
