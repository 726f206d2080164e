"""Leave a model as it was, except for its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from unteach.models.dropout import without_dropout
from unteach.models.saving import AsItCame
from unteach.models.unwrap import unwrapped

HALF = (torch.bfloat16, torch.float16)


def trains_half_precision(model: Any) -> bool:
    """Return whether weights of half precision are trained themselves, and not an adapter over them."""
    return any(weight.requires_grad and weight.dtype in HALF for weight in model.parameters())


def precision_notes(model: Any) -> list[str]:
    """Say that weights of half precision are trained in float32, where they are."""
    if not trains_half_precision(model):
        return []
    kind = str(unwrapped(model).dtype).removeprefix("torch.")
    return [f"the weights are {kind}: they are trained in float32 and put back, since small steps would be lost"]


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Hold weights and buffers of half precision in float32, and put them back in their own precision afterwards.

    One step at a usual learning rate is smaller than the distance between two neighbouring bfloat16 numbers: added to
    such weights it is lost, or rounded up to many times its size.
    """
    model = unwrapped(model)
    half = [(tensor, tensor.dtype) for tensor in (*model.parameters(), *model.buffers()) if tensor.dtype in HALF]
    try:
        for tensor, _ in half:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in half:
            tensor.data = tensor.data.to(dtype)


@contextmanager
def only_weights_change(model: Any) -> Iterator[None]:
    """Switch dropout off within the block, and restore everything but the weights afterwards.

    That is the dropout rates, which parameters are trained, which modules are in training mode, the generation config
    and the special tokens of the config.
    """
    model = unwrapped(model)
    modes = [(module, module.training) for module in model.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    settings = AsItCame.of(model)
    try:
        with without_dropout(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        settings.put_back(model)
