"""The model itself, without the wrappers that training puts around it."""

from typing import Any


def unwrapped(model: Any) -> Any:
    """Return the model inside data-parallel or compiling wrappers."""
    while hasattr(model, "module") or hasattr(model, "_orig_mod"):
        model = model.module if hasattr(model, "module") else model._orig_mod
    return model


def is_sharded(model: Any) -> bool:
    """Whether weights are spread over processes, by DeepSpeed or FSDP, also where they are just gathered."""
    kinds = ("DTensor", "FlatParameter")
    named = any(type(module).__name__.startswith("FSDP") for module in model.modules())
    return named or any(hasattr(weight, "ds_id") or type(weight).__name__ in kinds for weight in model.parameters())


def whole_linear(layer: Any) -> Any:
    """Return a linear layer whose weights are spread over processes as one that is whole on each of them."""
    from torch import nn  # what only asks `is_sharded` must not wait for torch

    whole = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, dtype=layer.weight.dtype)
    for name, weight in layer.named_parameters():
        full = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        setattr(whole, name, nn.Parameter(full.detach().clone()))
    return whole
