"""Bounded objectives that make a reply less likely as preference losses do, without a preferred reply."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from unteach.objectives.base import Replies, required, token_means, token_sums


@dataclass(frozen=True)
class NPO:
    """Make the replies less likely than the original had them: mean of −(2/β) log σ(−β log(π(y)/π₀(y))).

    Its gradient fades once a reply is far less likely than under the original, so unlike gradient ascent it stops by
    itself. π(y) is the product over the reply's tokens.

    Source: arXiv 2404.05868, eq. 3.
    """

    beta: float = 0.1

    reads_kl: ClassVar[bool] = False
    reads_reference: ClassVar[bool] = True

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        reference = required(replies.reference_log_probs, "the original's log-probabilities")
        ratio = token_sums(replies.log_probs - reference, replies.mask)
        return -(2 / self.beta) * logsigmoid(-self.beta * ratio).mean()


@dataclass(frozen=True)
class SimNPO:
    """NPO without a reference: mean of −(2/β) log σ(β(NLL(y)/|y| − δ)), NLL in nats.

    The division by the length makes long replies, which are unlikely anyway, count as much as short ones. δ is the
    margin, in nats per token, by which the mean negative log-likelihood should exceed 0.

    Source: arXiv 2410.07163, eq. 4.
    """

    beta: float = 2.5
    delta: float = 0.0

    reads_kl: ClassVar[bool] = False
    reads_reference: ClassVar[bool] = False

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        nll = -token_means(replies.log_probs, replies.mask)
        return -(2 / self.beta) * logsigmoid(self.beta * (nll - self.delta)).mean()
