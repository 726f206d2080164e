"""DeepSpeed's ZeRO: optimizer states and gradients (stage 2), and weights too (stage 3), spread over the ranks.

A module's weights are gathered before it runs and freed after it, and once more for its backward pass (arXiv
1910.02054). Stage 2 leaves a model whole; what is here about models is for stage 3.
"""

import copy
import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from unteach.errors import ConfigError, ModelError
from unteach.models.fsdp2 import files_of_tensors
from unteach.models.ranks import rank
from unteach.models.saving import base_model
from unteach.models.unwrap import own_part, whole_tensor

INSTALL = "pip install 'unteach[deepspeed]'"
PERSISTENT = 100_000
"""Weights of up to so many numbers stay whole between steps (DeepSpeed's own default): gathering them would not pay."""

BUCKET = 50_000_000
"""How many numbers are sent at a time; DeepSpeed's own ten times as many would take gigabytes of each card."""


def installed() -> bool:
    """Whether DeepSpeed is there."""
    return importlib.util.find_spec("deepspeed") is not None


def require_deepspeed(strategy: str) -> None:
    """Raise ConfigError where DeepSpeed is not installed."""
    if not installed():
        raise ConfigError(f"--shard {strategy}: DeepSpeed is not installed; install it: {INSTALL} (or --shard fsdp2)")


def start() -> None:
    """Start DeepSpeed among the ranks that have met, quietly and without extensions that it would compile.

    On a CPU these are messages through shared memory; gloo, which is there, does the same.
    """
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore", ".*all_gather_into_tensor.*|.*reduce_scatter_tensor.*", FutureWarning)
    import deepspeed
    from deepspeed.utils import logger

    deepspeed.ops.__compatible_ops__ = {}  # else it asks compiler and linker which of its extensions could be built
    logger.setLevel("ERROR")
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def engine_settings(strategy: str, offload: bool = False) -> dict[str, Any]:
    """Return DeepSpeed's settings of a run; those at "auto" are filled in from the trainer's arguments.

    With `offload` the optimizer's states, and the weights that it moves, lie in main memory, and torch's Adam runs
    there; DeepSpeed's own would have to be compiled.
    """
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    parted = _zero(strategy) | ({"offload_optimizer": {"device": "cpu"}} if offload else {})
    return dict.fromkeys(auto, "auto") | {"zero_optimization": parted, "zero_force_ds_cpu_optimizer": False}


def _zero(strategy: str) -> dict[str, Any]:
    buckets = ("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size")
    settings = dict.fromkeys(buckets, BUCKET) | {"stage3_param_persistence_threshold": PERSISTENT}
    return settings | {"stage": int(strategy.removeprefix("zero"))}


def is_parted(model: Any) -> bool:
    """Whether stage 3 has parted weights of a model."""
    return any(hasattr(weight, "ds_id") for weight in model.parameters())


# ---- loading ---------------------------------------------------------------------------------------------------------


@contextmanager
def loading(precision: torch.dtype) -> Iterator[dict[str, Any]]:
    """Within the block Transformers parts the weights that it loads, one after the other, in this precision."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    kinds = {"bf16": {"enabled": precision == torch.bfloat16}, "fp16": {"enabled": precision == torch.float16}}
    settings = {"zero_optimization": _zero("zero3"), "train_micro_batch_size_per_gpu": 1}
    kept = HfDeepSpeedConfig(settings | kinds)  # Transformers looks at the last one that is alive
    try:
        yield {}
    finally:
        del kept
        unset_hf_deepspeed_config()


def loaded(name: str, model: Any) -> None:
    """Let a model that was just loaded gather its weights, module by module, wherever it runs."""
    from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
    from deepspeed.utils.timer import NoopTimer

    model.zero_hooks = DeepSpeedZeRoOffload(model, NoopTimer(), None, param_persistence_threshold=PERSISTENT)
    _keep_head_whole(model)


@torch.no_grad()
def second(model: Any) -> Any:
    """Return a second model, loaded again, with the weights that this one, or an adapter's base, has now."""
    base = base_model(model)
    config, settings = copy.copy(base.config), {"dtype": base.dtype, "use_safetensors": True}
    revision = getattr(config, "_commit_hash", None)
    with loading(base.dtype):
        again = type(base).from_pretrained(base.name_or_path, config=config, revision=revision, **settings)
    loaded(base.name_or_path, again)
    if base is model:
        for own, other in zip(again.parameters(), model.parameters(), strict=True):
            own_part(own).copy_(own_part(other))
    return again


# ---- whole weights ---------------------------------------------------------------------------------------------------


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Within the block every rank holds all weights of a model, and it runs without DeepSpeed's hooks."""
    import deepspeed

    hooks, taken = base_model(model).zero_hooks, []
    _settle(hooks)
    for handle in _handles(hooks):
        there = handle.hooks_dict_ref()
        taken.append((there, handle.id, there.pop(handle.id)))
    try:
        with deepspeed.zero.GatheredParameters(_parted(model)):
            yield
    finally:
        for there, number, hook in taken:
            there[number] = hook


@contextmanager
def whole_state(model: Any) -> Iterator[dict[str, Tensor]]:
    """Yield the weights by name, in the first rank's main memory, and nothing on other ranks; of an adapter its own."""
    adapter, state = hasattr(model, "peft_config"), dict[str, Tensor]()
    tied = () if adapter else model.all_tied_weights_keys
    for name, weight in model.state_dict(keep_vars=True).items():
        if name not in tied and (weight.requires_grad or not adapter):
            whole = whole_tensor(weight).detach()
            if not rank():
                state[name] = whole.cpu()
    yield state


@torch.no_grad()
def load_weights(model: Any, directory: Path) -> None:
    """Fill the weights from a set of safetensors, one after the other. Raises ModelError where one is lacking."""
    files = files_of_tensors(directory)
    for name, weight in model.named_parameters():
        if name not in files:
            raise ModelError(f"{directory}: lacks the weight {name}; begin again with --overwrite")
        with changing([weight]):
            if not rank():
                with safe_open(files[name], framework="pt") as file:
                    weight.copy_(file.get_tensor(name))


def changing(weights: Sequence[Any]) -> Any:
    """Hold weights whole within the block; what the first rank makes of them is parted again at its end."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(weights), modifier_rank=0)


# ---- the engine ------------------------------------------------------------------------------------------------------


def drop_hooks(model: Any) -> None:
    """Take away the hooks by which a model gathers its weights, before an engine that trains it adds its own."""
    hooks = getattr(base_model(model), "zero_hooks", None)
    if hooks is not None:
        _settle(hooks)
        for handle in _handles(hooks):
            handle.remove()
        for module in hooks.module.modules():  # these would call the hooks that are no more
            module.__dict__.pop("pre_bwd_fn", None)
            module.__dict__.pop("post_bwd_fn", None)


def note_hooks(model: Any, engine: Any) -> None:
    """Note an engine's hooks with its model."""
    if is_parted(model):
        base_model(model).zero_hooks = engine.optimizer.parameter_offload
        _keep_head_whole(model)


def _keep_head_whole(model: Any) -> None:
    """Let the output layer stay whole once the model has run, until the optimizer's step.

    We apply it to the states of a batch piece by piece after that, and one rank may do so more often than another: it
    must not have to be gathered then, which all do together. DeepSpeed's hooks free no weight that is used elsewhere.
    """
    kept = base_model(model).zero_hooks.persistent_parameters
    for weight in _parted(base_model(model).get_output_embeddings()):
        weight.is_external_param = True
        if not weight.ds_persist:
            weight.ds_persist = True
            kept.append(weight)


def optimizer_parts(engine: Any) -> dict[str, Any]:
    """Return what this rank's part of an optimizer must remember: settings, weights in float32 and their moments."""
    inner, parts = engine.optimizer.optimizer, []
    for weights in moved_weights(engine):
        parts.append({"weights": weights.detach()} | dict(inner.state.get(weights, {})))
    groups = [{name: value for name, value in group.items() if name != "params"} for group in inner.param_groups]
    return {"groups": groups, "parts": parts}


@torch.no_grad()
def load_optimizer_parts(engine: Any, kept: dict[str, Any]) -> None:
    """Put back what `optimizer_parts` returned."""
    inner = engine.optimizer.optimizer
    for weights, part in zip(moved_weights(engine), kept["parts"], strict=True):
        weights.copy_(part.pop("weights"))
        place = weights.device  # of moments; the number of steps stays where torch has it
        inner.state[weights] = {name: value.to(place) if value.dim() else value for name, value in part.items()}
    for group, settings in zip(inner.param_groups, kept["groups"], strict=True):
        group.update(settings)


def moved_weights(engine: Any) -> Sequence[Tensor]:
    """Return this rank's part of the weights in float32, as the inner optimizer sees them."""
    optimizer = engine.optimizer
    parts: Sequence[Tensor] = getattr(optimizer, "fp32_partitioned_groups_flat", None) or (
        optimizer.single_partition_of_fp32_groups
    )
    return parts


def _parted(model: Any) -> list[Any]:
    return [weight for weight in model.parameters() if hasattr(weight, "ds_id")]


def _handles(hooks: Any) -> list[Any]:
    """Return the handles of all hooks, in an order in which they can be put back."""
    return [hooks.fwd_pre_hook, *hooks.forward_hooks, *hooks.backward_hooks]


def _settle(hooks: Any) -> None:
    """Wait for what hooks have begun to gather, and let no module count as running."""
    hooks.get_param_coordinator()._clean_inflight_param_registry()
    for weight in _parted(hooks.module):
        weight.ds_active_sub_modules.clear()
