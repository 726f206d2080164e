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


def runs_alone(model: Any) -> bool:
    """Whether one process can run the model without the others: its weights are not sharded, or all gathered."""
    return not is_sharded(model) or bool(getattr(unwrapped(model), "all_gathered", False))


def whole_linear(layer: Any) -> Any:
    """Return a linear layer whose weights are spread over processes as one that is whole on each of them."""
    from torch import nn  # what only asks `is_sharded` must not wait for torch

    whole = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, dtype=layer.weight.dtype)
    for name, weight in layer.named_parameters():
        setattr(whole, name, nn.Parameter(whole_tensor(weight).detach().clone()))
    return whole


def whole_tensor(value: Any) -> Any:
    """Return a tensor that is spread over processes as a whole one, on each of them; anything else as it is.

    All processes must ask together.
    """
    if hasattr(value, "full_tensor"):
        return value.full_tensor()
    if not hasattr(value, "ds_id") or value.ds_status.name == "AVAILABLE":
        return value
    import deepspeed

    with deepspeed.zero.GatheredParameters([value]):
        return value.detach().clone()


def apply_layer(layer: Any, states: Any) -> Any:
    """Apply an output layer to states outside of the model's forward pass.

    FSDP keeps the layer whole for this (`keep_head_whole`), and its hooks, which expect one call of each forward pass,
    are left out. Other layers are called as modules, so that theirs run.
    """
    return layer.forward(states) if type(layer).__name__.startswith("FSDP") else layer(states)


def own_part(value: Any) -> Any:
    """Return this rank's part of a tensor that is spread over processes; anything else as it is."""
    if hasattr(value, "ds_id"):  # its last parts are filled up, so that all are equally long
        part, first = value.ds_tensor, value.ds_tensor.ds_numel * value.ds_zero_partition_rank
        return part.detach()[: max(0, min(part.ds_numel, value.ds_numel - first))]
    return value.to_local() if hasattr(value, "to_local") else value


def size_of(weight: Any) -> int:
    """Return how many numbers a weight holds, in all its parts together."""
    return int(getattr(weight, "ds_numel", weight.numel()))
