"""Weights that FSDP2 spreads over the ranks, so that each holds a part of every weight (`torch`'s `fully_shard`).

A layer's weights are gathered before it runs, freed after it, and gathered again for its backward pass; gradients are
averaged over the ranks and parted as the weights are (arXiv 2304.11277). All ranks must run the model together, but
for the time in which its weights are `gathered`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from unteach.errors import ModelError
from unteach.models.layers import decoder_layers
from unteach.models.ranks import world
from unteach.models.saving import base_model
from unteach.models.unwrap import own_part, unwrapped


@contextmanager
def loading(precision: Any) -> Iterator[dict[str, Any]]:
    """Yield the arguments by which `from_pretrained` loads a model sharded over all ranks."""
    from transformers.distributed import DistributedConfig

    yield {"distributed_config": DistributedConfig(fsdp_size=world())}


def loaded(name: str, model: Any) -> None:
    """Make ready a model that was just loaded. Raises ModelError for one that is not sharded layer by layer."""
    require_parts(name, model)
    keep_head_whole(model)
    model._tp_size = None  # a number, even 1, has PEFT gather all weights wherever an adapter is saved


def shards_of(model: Any) -> list[Any]:
    """Return the modules of a model whose weights are gathered and freed together, the root among them."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in unwrapped(model).modules() if isinstance(module, FSDPModule)]


def require_parts(name: str, model: Any) -> None:
    """Raise ModelError where the layers of a model are not gathered one by one, as Transformers has no plan for it."""
    parts = set(shards_of(model))
    if not all(layer in parts for layer in decoder_layers(model)[1]):
        kind = type(model).__mro__[2].__name__
        raise ModelError(f"{name}: Transformers has no plan to shard a {kind} (base_model_fsdp_plan); drop --shard")


def keep_head_whole(model: Any) -> None:
    """Keep the output layer whole from a forward pass to the end of the backward pass; `reshard` must follow that.

    We apply it to the states of a batch piece by piece after the model has run, and torch frees weights as soon as the
    hooks of one call have run: a second call of a step would then read freed memory in its backward pass. Where the
    layer shares its weights with the embedding, Transformers leaves it to the root, and these are gathered twice.
    """
    root, head = shards_of(model)[0], unwrapped(model).get_output_embeddings()
    for module in shards_of(model):
        if module in (root, head):
            module.set_reshard_after_forward(False, recurse=False)
            module.set_reshard_after_backward(False, recurse=False)


def reshard(model: Any) -> None:
    """Free all gathered weights: a rank then holds its parts only, and these are its parameters."""
    for module in shards_of(model):
        module.reshard()


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Within the block every rank holds all weights of a model."""
    modules = shards_of(model)
    try:
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        yield
    finally:
        for module in modules:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()
        keep_head_whole(model)


@contextmanager
def whole_state(model: Any) -> Iterator[dict[str, Tensor]]:
    """Yield the whole weights of a sharded model by name, in the first rank's main memory; nothing on other ranks.

    Within the block the model's `save_pretrained` takes what it is given: its own way saves tied weights twice.
    """
    from transformers.distributed.utils import gather_full_state_dict

    state, kept = gather_full_state_dict(model), model.config.distributed_config
    for name in model.all_tied_weights_keys:
        state.pop(name, None)
    try:
        model.config.distributed_config = None
        yield state
    finally:
        model.config.distributed_config = kept


@torch.no_grad()
def load_weights(model: Any, directory: Path) -> None:
    """Fill the weights of a sharded model from a set of safetensors; each rank reads its own parts alone.

    Raises ModelError where a weight is lacking.
    """
    from transformers.distributed.sharding_utils import DtensorShardOperation

    reshard(model)
    files = files_of_tensors(directory)
    for name, weight in unwrapped(model).named_parameters():
        if name not in files:
            raise ModelError(f"{directory}: lacks the weight {name}; begin again with --overwrite")
        with safe_open(files[name], framework="pt") as file:
            part = DtensorShardOperation(weight).shard_tensor(file.get_slice(name))
        own_part(weight).copy_(part)


@torch.no_grad()
def second(model: Any) -> Any:
    """Return a second model, sharded as this one is: loaded again, and given the weights that this one has now.

    That of an adapter's model is its base as it was loaded.
    """
    base = base_model(model)
    kind: Any = type(base).__mro__[2]  # `fully_shard` puts two classes above the model's own
    config = copy.copy(base.config)
    settings = {"distributed_config": config.distributed_config, "dtype": base.dtype, "use_safetensors": True}
    revision = getattr(config, "_commit_hash", None)
    again = kind.from_pretrained(base.name_or_path, config=config, revision=revision, **settings)
    keep_head_whole(again)
    if base is model:
        reshard(model)
        for own, other in zip(again.parameters(), model.parameters(), strict=True):
            own_part(own).copy_(own_part(other))
    return again


def files_of_tensors(directory: Path) -> dict[str, Path]:
    """Return in which file of a directory each tensor lies."""
    found = dict[str, Path]()
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found
