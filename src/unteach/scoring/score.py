"""Score replies: log-probability and KL at every reply token, in memory that does not grow with the vocabulary.

A model runs once over a batch of trees. Only the states that enter its output head at the reply tokens are kept
(`LastHiddenStates`). The head is then applied in chunks, which are recomputed in the backward pass. This is the only
file that does softmax arithmetic.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unteach.errors import ModelError
from unteach.models.unwrap import apply_layer, is_sharded, runs_alone, unwrapped
from unteach.scoring.tilt import Tilt
from unteach.scoring.trees import TreeBatch

CHUNK_BYTES = 64 * 2**20
"""Size of one chunk of float32 logits; the peak is a small multiple of it, whatever the number of reply tokens."""

Logits = Callable[[Tensor], Tensor]

_REPRODUCES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a model's logits come from its `Head`, for the models tried so far."""


@dataclass(frozen=True)
class Head:
    """Turns last hidden states into logits as the model does: the output layer, then scale and soft cap."""

    layer: nn.Module
    scale: float = 1.0
    soft_cap: float | None = None

    def __call__(self, states: Float[Tensor, "*scored width"]) -> Float[Tensor, "*scored vocabulary"]:
        logits = apply_layer(self.layer, states)
        logits = logits * self.scale if self.scale != 1.0 else logits
        if self.soft_cap is not None:
            logits = self.soft_cap * torch.tanh(logits / self.soft_cap)
        return logits


@dataclass(frozen=True)
class LastHiddenStates:
    """What predicts each reply token of a batch: the last hidden states, and the head that reads them."""

    states: Float[Tensor, "scored width"]
    head: Logits


@dataclass(frozen=True)
class Scores:
    """Log-probability of each reply token, and KL(original ‖ live) at it where the original is given; both in nats."""

    log_probs: Float[Tensor, " scored"]
    kl: Float[Tensor, " scored"] | None


def head_of(model: Any) -> Head:
    """Return the model's head with the scale and soft cap that its config names (Gemma, Granite, Cohere and others)."""
    model = unwrapped(model)
    layer = model.get_output_embeddings()
    if layer is None:
        raise ModelError(f"{type(model).__name__} has no output embeddings; unteach needs a causal language model")
    config = model.config.get_text_config()
    scale = 1.0
    if getattr(config, "logits_scaling", None):
        scale = 1.0 / config.logits_scaling
    elif getattr(config, "logit_scale", None):
        scale = float(config.logit_scale)
    elif getattr(config, "lm_head_multiplier", None):
        scale = float(config.lm_head_multiplier)
    return Head(layer, scale, getattr(config, "final_logit_softcapping", None))


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
    for eager attention.
    """
    config = unwrapped(model).config
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.is_plain:
        return inputs | {"attention_mask": (batch.segments >= 0).long()}
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
    vocabulary = _vocabulary(live)
    rows = max(1, CHUNK_BYTES // (4 * vocabulary))
    parts = []
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        states0 = original.states[part] if original else None
        head0 = original.head if original else None
        arguments = (live.head, live.states[part], targets[part], head0, states0, tilt[part] if tilt else None)
        if torch.is_grad_enabled() and len(targets) > rows:
            parts.append(checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_chunk(*arguments))
    log_probs = torch.cat([part[0] for part in parts])
    return Scores(log_probs, torch.cat([part[1] for part in parts]) if original else None)


def _vocabulary(live: LastHiddenStates) -> int:
    if isinstance(live.head, Head):
        return unwrapped(live.head.layer).out_features
    return live.states.shape[-1]


def _chunk(
    head: Logits, states: Tensor, targets: Tensor, head0: Logits | None, states0: Tensor | None, tilt: Tilt | None
) -> tuple[Tensor, Tensor | None]:
    logits = head(states).float()
    log_p = (tilt(logits) if tilt else logits).log_softmax(dim=-1)
    picked = log_p.gather(-1, targets[:, None])[:, 0]
    if head0 is None or states0 is None:
        return picked, None
    with torch.no_grad():
        log_p0 = head0(states0).float().log_softmax(dim=-1)
    return picked, forward_kl(log_p0, log_p)


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


@torch.no_grad()
def trees_agree(model: Any, batch: TreeBatch) -> tuple[bool, float]:
    """Return whether a batch is scored like its plain rows, and the largest difference at a token, in nats.

    They differ for models whose attention ignores the mask or the positions, and for windows shorter than the row. In
    float32 the largest difference must be small; in half precision the mean, since single tokens are noisy there.
    """
    apart = batch.plain()
    left = score(last_hidden_states(model, batch), batch.targets).log_probs
    return alike(left, score(last_hidden_states(model, apart), apart.targets).log_probs, model)


def alike(left: Tensor, right: Tensor, model: Any) -> tuple[bool, float]:
    """Return whether two ways to score tokens agree up to rounding, and the largest difference, in nats."""
    difference = (left - right).abs()
    half = unwrapped(model).dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(left.device.type)
    scale = 1 + float(right.abs().mean())
    agree = float(difference.mean()) <= 0.02 * scale if half else float(difference.max()) <= 1e-3 * scale
    return agree, float(difference.max())


def tree_limit(model: Any) -> int | None:
    """Return the most places that a tree may take: the sliding window, which a 4-D mask overrides; None without one."""
    config = unwrapped(model).config.get_text_config()
    uses_window = getattr(config, "use_sliding_window", True)
    return getattr(config, "sliding_window", None) if uses_window else None
