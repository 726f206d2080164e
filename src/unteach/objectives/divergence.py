"""Objectives that keep the model close to the original."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from unteach.objectives.base import Replies, required, token_means


@dataclass(frozen=True)
class ForwardKL:
    """Stay the original model: mean over replies of the mean over tokens of KL(original ‖ live), in nats per token.

    Source: arXiv 2310.10683, eq. 6.
    Differs from the equation: token means instead of sums. Differs from the authors' code: a true KL in log space,
    over reply tokens only, with dropout off on both sides, so that it is 0 before the first step.
    """

    reads_kl: ClassVar[bool] = True
    reads_reference: ClassVar[bool] = False

    def __call__(self, replies: Replies) -> Float[Tensor, ""]:
        return token_means(required(replies.kl, "the KL to the original"), replies.mask).mean()
