"""Objectives on the likelihood of the replies themselves."""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from unteach.objectives.base import Replies, over_tokens, token_means


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """Make the replies more likely: mean over replies of the mean over tokens of −log p, in nats per token.

    On the mismatch stream this is the paper's random mismatch, on the template stream its variant with one fixed
    answer, on the normal stream plain fine-tuning.

    With `sums` it is −log p of the whole reply, in nats. What a reply will be is often decided at its first token, and
    in a mean that one weighs the less the longer the reply is.

    Source: arXiv 2310.10683, eq. 5.
    Differs from the equation, without `sums`: token means, as in the authors' code, so that a weight means the same at
    any length. Differs from the authors' code: every reply token counts, the first and the end of sequence included,
    and no prompt token does.
    """

    sums: bool = False

    reads_kl: ClassVar[bool] = False
    reads_reference: ClassVar[bool] = False

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        return -over_tokens(replies.log_probs, replies.mask, self.sums).mean()


@dataclass(frozen=True)
class GradientAscent:
    """Make the replies less likely: mean over replies of −min(NLL, bound), NLL in nats per token, averaged over tokens.

    A reply that has reached `bound` has no gradient any more. At ln(vocabulary) it is as unlikely as under guessing,
    and to push it further would only break other things. The default is no bound, as published.

    Source: arXiv 2310.10683, eq. 4.
    Differs from the equation: token means instead of sums, see `NegativeLogLikelihood`; the bound.
    """

    bound: float = math.inf

    reads_kl: ClassVar[bool] = False
    reads_reference: ClassVar[bool] = False

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        return -(-token_means(replies.log_probs, replies.mask)).clamp(max=self.bound).mean()


@dataclass(frozen=True)
class WeightedAscent:
    """Make the replies less likely token by token: mean over replies of the mean over tokens of p^β / β.

    Its gradient is that of gradient ascent with each token weighted by p^β. So a token that has become unlikely has no
    gradient any more, while all others still do: a long text is forgotten in every part, where a bound on the whole
    reply would be met by a few unlikely tokens. β = 1 minimises the mean probability of a token.

    Source: WGA, arXiv 2502.19301.
    Differs: written as a value with that gradient (there −p^β · NLL with p^β held constant).
    """

    beta: float = 1.0

    reads_kl: ClassVar[bool] = False
    reads_reference: ClassVar[bool] = False

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        inside = replies.log_probs.masked_fill(~replies.mask, 0.0)  # padding may hold infinities
        return token_means((self.beta * inside).exp() / self.beta, replies.mask).mean()
