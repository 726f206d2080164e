"""The model itself, without the wrappers that training puts around it."""

from typing import Any


def unwrapped(model: Any) -> Any:
    """Return the model inside data-parallel or compiling wrappers."""
    while hasattr(model, "module") or hasattr(model, "_orig_mod"):
        model = model.module if hasattr(model, "module") else model._orig_mod
    return model


def is_sharded(model: Any) -> bool:
    """Whether weights are spread over processes, by DeepSpeed or FSDP."""
    kinds = ("DTensor", "FlatParameter")
    return any(hasattr(weight, "ds_id") or type(weight).__name__ in kinds for weight in model.parameters())
