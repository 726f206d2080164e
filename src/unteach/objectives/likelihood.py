"""Objectives on the likelihood of the replies themselves."""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from unteach.objectives.base import Replies, token_means


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """Make the replies more likely: mean over replies of the mean over tokens of −log p, in nats per token.

    On the mismatch stream this is the paper's random mismatch, on the template stream its fixed-answer variant, on
    the normal stream plain fine-tuning.

    Source: arXiv 2310.10683, eq. 5.
    Differs: token means instead of sums, as in the authors' code, so that the weights mean the same at any length;
    from that code: every reply token counts, the first and the end of sequence included, and no prompt token does.
    """

    reads_kl: ClassVar[bool] = False
    reads_reference: ClassVar[bool] = False

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        return -token_means(replies.log_probs, replies.mask).mean()


@dataclass(frozen=True)
class GradientAscent:
    """Make the replies less likely: mean over replies of −min(NLL, bound), NLL in nats per token, averaged over tokens.

    A reply that has reached `bound` pulls no more: at ln(vocabulary) it is as unlikely as under guessing, and pushing
    it further only breaks other things. The default is no bound, as published.

    Source: arXiv 2310.10683, eq. 4.
    Differs: token means instead of sums, see `NegativeLogLikelihood`; the bound.
    """

    bound: float = math.inf

    reads_kl: ClassVar[bool] = False
    reads_reference: ClassVar[bool] = False

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        return -(-token_means(replies.log_probs, replies.mask)).clamp(max=self.bound).mean()
