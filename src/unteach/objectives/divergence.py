"""Objectives that keep the model close to the original."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from unteach.objectives.base import Replies, over_tokens, required


@dataclass(frozen=True)
class ForwardKL:
    """Stay the original model: mean over replies of the mean over tokens of KL(original ‖ live), in nats per token.

    With `sums`, tokens are summed, in nats per reply: beside an objective with `sums`, both sides weigh a first token
    alike.

    Source: arXiv 2310.10683, eq. 6.
    Differs from the equation, without `sums`: token means. Differs from the authors' code: a true KL in log space,
    over reply tokens only, with dropout off on both sides, so that it is 0 before the first step.
    """

    sums: bool = False

    reads_kl: ClassVar[bool] = True
    reads_reference: ClassVar[bool] = False

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        return over_tokens(required(replies.kl, "the KL to the original"), replies.mask, self.sums).mean()
