"""Weights that are spread over the ranks: one door to the strategies, each of which has a file of its own.

`fsdp2` and `zero3` part the weights (`fsdp2.py`, `zero.py`); `zero2` parts what training adds to them, so its model is
whole. All ranks must run a model that is parted together, but for the time in which its weights are `gathered`.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from unteach.errors import ConfigError
from unteach.models import fsdp2, zero
from unteach.models.ranks import any_rank, world
from unteach.models.saving import base_model
from unteach.models.unwrap import runs_alone, size_of

PARTED: dict[str, ModuleType] = {"fsdp2": fsdp2, "zero3": zero}
"""The strategies that part weights."""
STRATEGIES = ("fsdp2", "zero2", "zero3")
"""How what a run holds may be spread over the ranks."""
ROOM = 1.2
"""How much memory must be free, relative to the whole weights, before these are gathered."""


def require_strategy(strategy: str) -> None:
    """Raise ConfigError unless this strategy exists and can be started here."""
    if strategy not in STRATEGIES:
        raise ConfigError(f"unknown sharding '{strategy}'; known: {', '.join(STRATEGIES)}")
    if world() == 1:
        raise ConfigError(
            f"--shard {strategy}: there is one process; start several with torchrun (docs/many-gpus.md) or drop it"
        )
    if strategy.startswith("zero"):
        zero.require_deepspeed(strategy)


def loading(strategy: str | None, precision: Any) -> AbstractContextManager[dict[str, Any]]:
    """Yield the arguments by which `from_pretrained` loads a model whose weights are parted; others need none."""
    if strategy and strategy.startswith("zero"):
        zero.start()
    way: Any = PARTED.get(strategy or "")
    return way.loading(precision) if way else nullcontext({})


def loaded(strategy: str, name: str, model: Any) -> None:
    """Make ready a model that was just loaded in parts. Raises ModelError for one that cannot be parted."""
    _way(strategy).loaded(name, model)


@contextmanager
def gathered(*models: Any) -> Iterator[None]:
    """Within the block every rank holds all weights, where there is room on each, and may run the models alone.

    The weights must not change within it. Does nothing where no model is sharded.
    """
    parted = {id(inner): inner for model in models if not runs_alone(inner := base_model(model))}
    if not parted or any_rank(not _fit(list(parted.values()))):
        yield
        return
    with ExitStack() as stack:
        for model in parted.values():
            stack.enter_context(_way_of(model).gathered(model))
            stack.callback(setattr, model, "all_gathered", False)
            model.all_gathered = True
        yield


def whole_state(model: Any) -> AbstractContextManager[dict[str, Tensor]]:
    """Yield what is saved of a sharded model, whole and by name, in the first rank's main memory; else nothing.

    Within the block the model's `save_pretrained` takes what it is given.
    """
    whole: AbstractContextManager[dict[str, Tensor]] = _way_of(model).whole_state(model)
    return whole


@torch.no_grad()
def load_weights(model: Any, directory: Path) -> None:
    """Fill the weights of a sharded model from a set of safetensors. Raises ModelError where a weight is lacking."""
    _way_of(model).load_weights(model, directory)


@torch.no_grad()
def sharded_copy(model: Any) -> Any:
    """Return a second model, sharded as this one is: loaded again, and given the weights that this one has now.

    That of an adapter's model is its base as it was loaded.
    """
    return _way_of(model).second(model)


def _way(strategy: str) -> Any:
    return PARTED[strategy]


def _way_of(model: Any) -> Any:
    """Return the file of the strategy by which a model's weights are parted."""
    return zero if zero.is_parted(model) else fsdp2


def _fit(models: Sequence[Any]) -> bool:
    """Return whether this rank's GPU has room for all weights; how much main memory is free is not asked."""
    weights = [weight for model in models for weight in model.parameters()]
    if weights[0].device.type != "cuda":
        return True
    size = sum(size_of(weight) * weight.element_size() for weight in weights)
    return bool(torch.cuda.mem_get_info()[0] > ROOM * size)
