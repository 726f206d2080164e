"""Leave a model as it was, except for its weights."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unteach.models.unwrap import unwrapped
from unteach.scoring.score import without_dropout

CONFIG_FIELDS = ("use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
"""Fields that transformers' Trainer may set in a model's config."""


@contextmanager
def only_weights_change(model: Any) -> Iterator[None]:
    """Switch dropout off within the block, and restore everything but the weights afterwards.

    That is the dropout rates, which parameters are trained, which modules are in training mode, the generation config
    and the special tokens of the config.
    """
    model = unwrapped(model)
    modes = [(module, module.training) for module in model.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    settings = {name: getattr(base.config, name) for name in CONFIG_FIELDS if hasattr(base.config, name)}
    generation = copy.deepcopy(getattr(base, "generation_config", None))
    try:
        with without_dropout(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        for name, value in settings.items():
            setattr(base.config, name, value)
        if generation is not None:
            base.generation_config = generation
