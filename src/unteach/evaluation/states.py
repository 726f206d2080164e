"""The states inside a model: the residual stream before the first layer and after each, and what they predict."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unteach.models.layers import decoder_layers
from unteach.models.unwrap import unwrapped
from unteach.scoring.head import head_of

DEPTHS = {"1/3": 1 / 3, "1/2": 1 / 2, "2/3": 2 / 3}


def at_depth(layers: int, depth: float) -> int:
    """Return after which layer, counted from 1, a share of the depth lies."""
    return min(layers, max(1, round(layers * depth)))


def residual_modules(model: Any) -> list[nn.Module]:
    """Return the modules that write the residual stream: the embedding, and every decoder layer."""
    return [unwrapped(model).get_input_embeddings(), *decoder_layers(model)[1]]


@torch.no_grad()
def states_after(model: Any, ids: Sequence[int]) -> list[Tensor]:
    """Return the residual stream of one row, [1, token, width], before the first layer and after each."""
    with caught(model) as states:
        device = unwrapped(model).device
        unwrapped(model)(input_ids=torch.tensor([list(ids)], device=device), use_cache=False)
    return states


@contextmanager
def caught(model: Any) -> Iterator[list[Tensor]]:
    """Collect in this block what every residual module gives."""
    states: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        states.append((output[0] if isinstance(output, tuple) else output).detach())

    handles = [module.register_forward_hook(keep) for module in residual_modules(model)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def last_norm(model: Any) -> nn.Module:
    """Return the norm that stands between the last layer and the output layer; one that does nothing where none is."""
    inner = unwrapped(model)
    decoder = inner.get_decoder() if hasattr(inner, "get_decoder") else inner
    named = [module for name, module in decoder.named_children() if "norm" in name or name == "ln_f"]
    return named[-1] if named else nn.Identity()


@torch.no_grad()
def read_out(model: Any, states: Tensor) -> Tensor:
    """Return the token that each state would predict if it were the last one (the logit lens)."""
    tokens: Tensor = head_of(model)(last_norm(model)(states)).argmax(dim=-1)
    return tokens
