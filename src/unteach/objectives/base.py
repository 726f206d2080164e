"""An objective: a small frozen object that turns the scores of one stream into a loss.

An objective reads the scores of reply tokens and returns a scalar to be minimised. It never sees a model, a tokenizer
or a batch layout, so its value can be worked out by hand.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Replies:
    """Scores of the replies of one stream, padded at the end.

    `log_probs` are natural logs of the live model's probability of each reply token, `reference_log_probs` those of
    the original model. `kl` is the forward KL(original ‖ live) at each token in nats. `mask` is True on reply tokens.
    """

    log_probs: Float[Tensor, "reply token"]
    mask: Bool[Tensor, "reply token"]
    reference_log_probs: Float[Tensor, "reply token"] | None = None
    kl: Float[Tensor, "reply token"] | None = None


@runtime_checkable
class Objective(Protocol):
    """A loss over one stream. Its fields are its configuration.

    `reads_kl` and `reads_reference` tell the trainer whether to compute `kl` and `reference_log_probs`.
    """

    reads_kl: ClassVar[bool]
    reads_reference: ClassVar[bool]

    def __call__(self, replies: Replies) -> Float[Tensor, ""]: ...


def token_sums(values: Float[Tensor, "reply token"], mask: Bool[Tensor, "reply token"]) -> Float[Tensor, " reply"]:
    """Sum each reply's values over its tokens. Raises ValueError for a reply without scored tokens."""
    if not bool(mask.any(dim=1).all()):
        raise ValueError("a reply has no scored token; its loss would silently be zero")
    return values.masked_fill(~mask, 0.0).sum(dim=1)


def token_means(values: Float[Tensor, "reply token"], mask: Bool[Tensor, "reply token"]) -> Float[Tensor, " reply"]:
    """Average each reply's values over its tokens. Raises ValueError for a reply without scored tokens."""
    return token_sums(values, mask) / mask.sum(dim=1)


def over_tokens(
    values: Float[Tensor, "reply token"], mask: Bool[Tensor, "reply token"], sums: bool
) -> Float[Tensor, " reply"]:
    """Sum each reply's values over its tokens, or average them. Raises ValueError for a reply without scored tokens."""
    return token_sums(values, mask) if sums else token_means(values, mask)


def required(values: Tensor | None, what: str) -> Tensor:
    """Return `values`; raise ValueError where the caller did not compute them."""
    if values is None:
        raise ValueError(f"this objective reads {what}, which was not computed")
    return values
