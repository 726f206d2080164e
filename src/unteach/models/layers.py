"""The decoder layers of a model, and which of them are trained."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from unteach.errors import ConfigError
from unteach.models.unwrap import unwrapped


def decoder_layers(model: Any) -> tuple[str, Sequence[nn.Module]]:
    """Return the decoder layers from the input to the output, and the name of their list, such as "layers".

    Raises ConfigError for a model without such a list.
    """
    model = unwrapped(model)
    count = model.config.get_text_config().num_hidden_layers
    for path, module in _decoder(model).named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return path.rpartition(".")[2], list(module)
    raise ConfigError(f"--train-layers: {type(model).__name__} has no list of {count} layers; leave it out")


def _decoder(model: Any) -> nn.Module:
    """Return the part of a model that reads text, inside an adapter too."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder: nn.Module = inner.get_decoder() if hasattr(inner, "get_decoder") else inner
    return decoder


def upper_layers(model: Any, share: float) -> range:
    """Return the numbers of the uppermost `share` of the layers, one at least. Raises ConfigError for another share."""
    if not 0 < share <= 1:
        raise ConfigError(f"--train-layers {share:g}: must be above 0 and at most 1, a share of the layers")
    count = len(decoder_layers(model)[1])
    return range(count - max(1, round(share * count)), count)


def freeze_below(model: Any, first: int) -> None:
    """Stop training the layers below layer `first`, counted from 0, and all that enters them, such as embeddings."""
    layers = decoder_layers(model)[1][first:]
    kept = {id(weight) for layer in layers for weight in layer.parameters()} | {id(weight) for weight in _above(model)}
    for weight in unwrapped(model).parameters():
        if id(weight) not in kept:
            weight.requires_grad_(False)


def first_trained(model: Any) -> int:
    """Return the number of the first layer that training changes; 0 where it also changes what enters the layers."""
    try:
        layers = decoder_layers(model)[1]
    except ConfigError:
        return 0
    inside = {id(weight) for layer in layers for weight in layer.parameters()}
    above = {id(weight) for weight in _above(model)}
    if any(w.requires_grad and id(w) not in inside | above for w in unwrapped(model).parameters()):
        return 0
    trained = (number for number, layer in enumerate(layers) if any(w.requires_grad for w in layer.parameters()))
    return next(trained, 0)


def _above(model: Any) -> list[nn.Parameter]:
    """Return the weights above the layers: an output layer that is no embedding too, and the last norm."""
    model = unwrapped(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    shared = {id(weight) for weight in embedding.parameters()}
    norms = [module for name, module in _decoder(model).named_children() if "norm" in name or name == "ln_f"]
    modules = [*norms, *([head] if head is not None else [])]
    return [weight for module in modules for weight in module.parameters() if id(weight) not in shared]
