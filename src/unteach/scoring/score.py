"""Score replies: log-probability and KL at every reply token, in memory that does not grow with the vocabulary.

A model runs once over a batch of trees. Only the states that enter its output head at the reply tokens are kept
(`LastHiddenStates`). The head is then applied in chunks, which are recomputed in the backward pass. This is the only
file that does softmax arithmetic.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils.checkpoint import checkpoint

from unteach.models.unwrap import is_sharded, runs_alone, unwrapped
from unteach.scoring.head import Head, Logits, head_of
from unteach.scoring.mask import tree_rule
from unteach.scoring.tilt import Tilt
from unteach.scoring.trees import TreeBatch

CHUNK_BYTES = 64 * 2**20
"""Size of one chunk of float32 logits; the peak is a small multiple of it, whatever the number of reply tokens."""

_REPRODUCES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a model's logits come from its `Head`, for the models tried so far."""


@dataclass(frozen=True)
class LastHiddenStates:
    """What predicts each reply token of a batch: the last hidden states, and the head that reads them."""

    states: Float[Tensor, "scored width"]
    head: Logits


@dataclass(frozen=True)
class Scores:
    """Log-probability of each reply token, and KL(original ‖ live) at it where the original is given; both in nats.

    `untilted` are those of the model as it is where a tilt has changed these; without gradients.
    """

    log_probs: Float[Tensor, " scored"]
    kl: Float[Tensor, " scored"] | None
    untilted: "Scores | None" = None


@contextmanager
def _stopped_before(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Catch what enters the output layer, and let only one position of each row through, to keep the logits small."""
    caught: list[Tensor] = []

    def catch(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        caught.append(inputs[0])
        return (inputs[0][:, :1], *inputs[1:])

    handle = layer.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def last_hidden_states(model: Any, batch: TreeBatch) -> LastHiddenStates:
    """Run the model over a batch and return what predicts each reply token.

    Where the head does not reproduce the model's own logits (an unknown change after the output layer), the logits at
    the reply tokens are returned instead: as exact, with more memory.
    """
    head = head_of(model)
    with _stopped_before(head.layer) as caught:
        output = model(**model_inputs(model, batch))
    if _reproduces(model, head, caught[0], output.logits):
        return LastHiddenStates(caught[0][batch.rows, batch.columns], head)
    logits = model(**model_inputs(model, batch)).logits
    return LastHiddenStates(logits[batch.rows, batch.columns], _as_is)


def _as_is(logits: Tensor) -> Tensor:
    return logits


def _reproduces(model: Any, head: Head, states: Tensor, logits: Tensor) -> bool:
    """Whether the head gives the model's own logits; tested once for each model, on one position of each row.

    What a rank finds alone, of weights that are gathered for a while, is not kept: another, which had no batch then,
    would later apply the head once more, and all must gather it together.
    """
    key = unwrapped(model)
    if key not in _REPRODUCES:
        with torch.no_grad():
            ours = head(states[:, :1].detach())
        near = 1e-4 if ours.dtype == torch.float32 else 1e-2  # a wide soft cap hardly changes small logits
        same_shape = ours.shape == logits.shape
        same = same_shape and torch.allclose(ours.float(), logits.detach().float(), rtol=near, atol=near)
        if is_sharded(key) and runs_alone(key):
            return same
        _REPRODUCES[key] = same
    return _REPRODUCES[key]


def model_inputs(model: Any, batch: TreeBatch) -> dict[str, Any]:
    """Return the keyword arguments that run `model` over a batch.

    Plain rows get an ordinary padding mask. Trees get explicit positions and a 4-D mask: boolean for sdpa, additive
    for eager attention, and blocks of it for flex attention, which skips those where no query may attend.
    """
    config = unwrapped(model).config
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.is_plain:
        return inputs | {"attention_mask": (batch.segments >= 0).long()}
    if config._attn_implementation == "flex_attention":
        rows, length = batch.input_ids.shape
        blocks = create_block_mask(
            tree_rule(batch.members, batch.segments), rows, None, length, length, device=batch.input_ids.device
        )
        return inputs | {"attention_mask": blocks, "position_ids": batch.position_ids}
    mask: Tensor = batch.may_attend()
    if config._attn_implementation != "sdpa":
        dtype = unwrapped(model).dtype
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    return inputs | {"attention_mask": mask, "position_ids": batch.position_ids}


def score(
    live: LastHiddenStates,
    targets: Int[Tensor, " scored"],
    original: LastHiddenStates | None = None,
    tilt: Tilt | None = None,
) -> Scores:
    """Return the log-probability of each target and, given the original's states, the KL at each, in nats.

    `tilt` changes the live logits. Computed in float32. Large inputs go through the head in chunks of at most
    `CHUNK_BYTES` of logits. With gradients, the backward pass computes a chunk's logits again: they need not be kept.
    """
    vocabulary, chunk = _vocabulary(live), CHUNK.get()
    rows = max(1, CHUNK_BYTES // (4 * vocabulary))
    parts = []
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        states0 = original.states[part] if original else None
        head0 = original.head if original else None
        arguments = (live.head, live.states[part], targets[part], head0, states0, tilt[part] if tilt else None)
        if torch.is_grad_enabled() and len(targets) > rows:
            parts.append(checkpoint(chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(chunk(*arguments))
    untilted = _joined([part.untilted for part in parts if part.untilted]) if tilt else None
    return replace(_joined(parts), untilted=untilted)


def _joined(parts: Sequence[Scores]) -> Scores:
    """Put the scores of chunks together, without those that are untilted."""
    kl = [part.kl for part in parts if part.kl is not None]
    return Scores(torch.cat([part.log_probs for part in parts]), torch.cat(kl) if kl else None)


def _vocabulary(live: LastHiddenStates) -> int:
    if isinstance(live.head, Head):
        return unwrapped(live.head.layer).out_features
    return live.states.shape[-1]


def score_chunk(
    head: Logits, states: Tensor, targets: Tensor, head0: Logits | None, states0: Tensor | None, tilt: Tilt | None
) -> Scores:
    """Return what `score` does of as many reply tokens as may be in memory at once."""
    logits = head(states).float()
    log_p0 = None
    if head0 is not None and states0 is not None:
        with torch.no_grad():
            log_p0 = head0(states0).float().log_softmax(dim=-1)
    found = _scores(tilt(logits) if tilt else logits, targets, log_p0)
    return replace(found, untilted=_scores(logits.detach(), targets, log_p0)) if tilt else found


def _scores(logits: Tensor, targets: Tensor, log_p0: Tensor | None) -> Scores:
    log_p = logits.log_softmax(dim=-1)
    picked = log_p.gather(-1, targets[:, None])[:, 0]
    return Scores(picked, None if log_p0 is None else forward_kl(log_p0, log_p))


CHUNK: ContextVar[Callable[..., Scores]] = ContextVar("chunk", default=score_chunk)
"""What `score` runs on a chunk: `score_chunk`, or the same compiled."""


def forward_kl(
    log_p0: Float[Tensor, "scored vocabulary"], log_p: Float[Tensor, "scored vocabulary"]
) -> Float[Tensor, " scored"]:
    """KL(p₀ ‖ p) = Σ p₀ (log p₀ − log p) in nats, from log-probabilities: exactly 0 where both are the same.

    Source: arXiv 2310.10683, eq. 6.
    """
    return (log_p0.exp() * (log_p0 - log_p)).sum(dim=-1)


@torch.no_grad()
def greedy_hits(live: LastHiddenStates, targets: Int[Tensor, " scored"]) -> Tensor:
    """Return whether each target is the most likely token, given the true tokens before it."""
    rows = max(1, CHUNK_BYTES // (4 * _vocabulary(live)))
    parts = [live.head(states).argmax(dim=-1) for states in live.states.split(rows)]
    return torch.cat(parts) == targets


def padded(
    values: Float[Tensor, " scored"], batch: TreeBatch, chosen: list[int]
) -> tuple[Float[Tensor, "reply token"], Tensor]:
    """Arrange values of reply tokens as one row for each chosen branch; returns the values and their mask."""
    place = torch.full((len(batch.streams),), -1, device=values.device)
    place[chosen] = torch.arange(len(chosen), device=values.device)
    reply, inside = place[batch.branches], place[batch.branches] >= 0
    width = int(batch.slots[inside].max()) + 1
    table = values.new_zeros(len(chosen), width)
    mask = torch.zeros(len(chosen), width, dtype=torch.bool, device=values.device)
    table = table.index_put((reply[inside], batch.slots[inside]), values[inside])
    mask[reply[inside], batch.slots[inside]] = True
    return table, mask
