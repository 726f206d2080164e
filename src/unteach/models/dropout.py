"""Switch dropout off."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch every dropout off within the block, in training mode too, so that KL starts at 0 and runs repeat.

    The config is left alone. (Evaluation mode would also switch activation checkpointing off.)
    """
    rates: list[tuple[nn.Module, str, float]] = []
    for module in model.modules():
        names = ["p"] if isinstance(module, nn.Dropout) else []
        names += [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]
        rates += [(module, name, getattr(module, name)) for name in names]
    try:
        for module, name, _ in rates:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, rate in rates:
            setattr(module, name, rate)
