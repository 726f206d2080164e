"""The weights of a model while an attack changes them: which they are, and putting them back bit by bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def kept_weights(model: Any) -> dict[str, Tensor]:
    """Return a copy of every weight and buffer by name, shared ones once."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """Let the block change weights; afterwards, also after Ctrl-C, all are bitwise as they were.

    Whether weights want a gradient, and the mode of every module, are as before too.
    """
    kept = kept_weights(model)
    wanted = {name: weight.requires_grad for name, weight in model.named_parameters()}
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in (*model.named_parameters(), *model.named_buffers()):
                value.copy_(kept[name])
        for name, weight in model.named_parameters():
            weight.requires_grad_(wanted[name])
            weight.grad = None
        for module, mode in modes:
            module.training = mode


def matrices(model: Any) -> dict[str, Tensor]:
    """Return the weights of all linear layers but the output layer by name, as quantisers take them."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    shared = {
        id(weight) for part in (head, model.get_input_embeddings()) if part is not None for weight in part.parameters()
    }
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in shared:
            found[f"{name}.weight"] = module.weight
    return found
