"""A model without its weights: built from config.json on torch's meta device, to count what it would take."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from unteach.errors import ModelError
from unteach.models.directory import base_of, is_adapter, local_directory
from unteach.models.hub import reason
from unteach.models.layers import decoder_layers
from unteach.models.loading import load_config
from unteach.models.unwrap import unwrapped

PROBED = 64
"""Tokens of the shorter of two rows on which activations are counted."""


@dataclass(frozen=True)
class Outline:
    """The sizes of a model that decide what training it takes; counts are of parameters.

    `trained` are those of an adapter where it has one, else all; `linear` are those that four-bit loading packs;
    `layer` is the largest layer, and `outside` the largest table outside the layers (embedding or output layer), of
    which sharded training gathers one at a time. `activations` are the bytes a token that a forward pass keeps for its
    backward pass in two-byte numbers, and `entering` those of the states that enter the layers, which are all that
    checkpointing keeps.
    """

    parameters: int
    trained: int
    linear: int
    layer: int
    outside: int
    layers: int
    width: int
    vocabulary: int
    activations: float
    entering: float


def model_outline(name: str, *, trust_remote_code: bool = False) -> Any:
    """Build a model on the meta device, from a directory, a hub id that is kept here, or a file config.json alone.

    The directory needs no weights; an adapter stands for its base.

    Raises ModelError for a config that cannot be read or is of no causal language model.
    """
    file = Path(name).expanduser()
    try:
        if file.is_file() and file.suffix == ".json":
            config = AutoConfig.from_pretrained(str(file), trust_remote_code=trust_remote_code)
        else:
            place = local_directory(name)
            whole = base_of(place) if place is not None and is_adapter(place) else place
            config = load_config(str(whole or name), trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16, trust_remote_code=trust_remote_code, attn_implementation="sdpa"
            )
    except ModelError:
        raise
    except Exception as error:  # files of strangers, read by libraries that raise anything
        raise ModelError(f"{name}: no model can be made of its config ({reason(error)}); check config.json") from error
    return model.eval()


def outline_of(model: Any) -> Outline:
    """Count a model, on whatever device, with its adapter where it has one."""
    inner = unwrapped(model)
    config = inner.config.get_text_config()
    layers = decoder_layers(model)[1]
    inside = {id(weight) for layer in layers for weight in layer.parameters()}
    own = [weight for name, weight in inner.named_parameters() if ".lora_" not in name]
    return Outline(
        parameters=sum(weight.numel() for weight in own),
        trained=sum(weight.numel() for weight in inner.parameters() if weight.requires_grad),
        linear=sum(weight.numel() for layer in layers for weight in _packed(layer)),
        layer=max(sum(weight.numel() for weight in layer.parameters()) for layer in layers),
        outside=max((weight.numel() for weight in own if id(weight) not in inside), default=0),
        layers=len(layers),
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        activations=activation_bytes(model) * 2 / next(iter(own)).element_size(),
        entering=2.0 * len(layers) * config.hidden_size,
    )


def _packed(layer: nn.Module) -> list[Tensor]:
    """Return the matrices of a layer that loading in four bits packs."""
    linear = (module for name, module in layer.named_modules() if isinstance(module, nn.Linear) and "lora_" not in name)
    return [module.weight for module in linear]


def activation_bytes(model: Any) -> float:
    """Return the bytes a token that the layers keep for the backward pass, counted where autograd saves them.

    The part that grows with the square of the length, masks and attention scores, is left out: fused attention keeps
    none. It is parted from the rest by two rows, one twice as long as the other.
    """
    short, long = _saved(model, PROBED), _saved(model, 2 * PROBED)
    return (4 * short - long) / (2 * PROBED)


def _saved(model: Any, length: int) -> int:
    """Return the bytes that autograd saves in one forward pass of one row, each tensor once, weights left out."""
    inner = unwrapped(model)
    decoder = (inner.get_base_model() if hasattr(inner, "get_base_model") else inner).get_decoder()
    weights = {weight.untyped_storage()._cdata for weight in (*inner.parameters(), *inner.buffers())}
    seen: dict[int, tuple[int, Any]] = {}  # holds each storage, so that no other gets its address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            seen[storage._cdata] = storage.nbytes(), storage
        return tensor

    place = next(inner.parameters()).device
    row = torch.zeros(1, length, dtype=torch.long, device=place)
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=place).tril()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outcome = decoder(
            input_ids=row,
            attention_mask=mask,
            position_ids=torch.arange(length, device=place)[None],
            use_cache=False,
        )
    del outcome
    return sum(size for size, _ in seen.values())
