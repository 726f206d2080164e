"""The output head: from last hidden states to logits, as the model does it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unteach.errors import ModelError
from unteach.models.unwrap import apply_layer, is_sharded, unwrapped, whole_linear

Logits = Callable[[Tensor], Tensor]


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


def frozen_head(model: Any) -> Logits:
    """Return a copy of the model's head that training does not move."""
    head = head_of(model)
    layer = whole_linear(head.layer) if is_sharded(head.layer) else copy.deepcopy(head.layer)
    return Head(layer.requires_grad_(False), head.scale, head.soft_cap)
