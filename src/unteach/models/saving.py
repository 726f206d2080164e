"""A trained model, written to a directory as it came: dtype, settings and tokenizer are those of the original."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from unteach.disk.files import whole_directory
from unteach.models.ranks import held_by_first, on_first_rank
from unteach.models.unwrap import is_sharded, unwrapped

_LEFT_BEHIND = ("README.md", "training_args.bin")
"""The card of PEFT or TRL, which knows less than the run's beside this directory, and arguments in a pickle."""

_CONFIG = ("use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
"""Fields of a model's config that trainers set."""
_TOKENIZER = ("pad_token", "padding_side", "truncation_side", "chat_template")
"""Settings of a tokenizer that we or trainers set."""


@dataclass(frozen=True)
class AsItCame:
    """What a model came with and trainers may change; `dtype` is that of its weights on disk, None if it may stay."""

    config: Mapping[str, Any]
    generation: Any
    dtype: torch.dtype | None = None

    @classmethod
    def of(cls, model: Any, dtype: torch.dtype | None = None) -> "AsItCame":
        """Note what a model, or the base of an adapter, has now."""
        base = base_model(model)
        noted = cls.of_config(base.config, dtype)
        return replace(noted, generation=copy.deepcopy(getattr(base, "generation_config", None)))

    @classmethod
    def of_config(cls, config: Any, dtype: torch.dtype | None = None) -> "AsItCame":
        """Note what a config says."""
        return cls({name: getattr(config, name) for name in _CONFIG if hasattr(config, name)}, None, dtype)

    def put_back(self, model: Any) -> None:
        """Put it back; the dtype is left to `save_model`."""
        base = base_model(model)
        for name, value in self.config.items():
            setattr(base.config, name, value)
        if self.generation is not None:
            base.generation_config = copy.deepcopy(self.generation)


@contextmanager
def saved_quietly() -> Iterator[None]:
    """Within this block Transformers shows no bars ("Writing model shards"), and PEFT does not tell what it adds."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*(save_embedding_layers|find a config file)", category=UserWarning
            )
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def base_model(model: Any) -> Any:
    """Return the model without wrappers and adapter."""
    model = unwrapped(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def note_tokenizer(tokenizer: Any) -> Any:
    """Note how a tokenizer came, for `save_tokenizer`; returns the tokenizer."""
    tokenizer.as_it_came = {name: getattr(tokenizer, name, None) for name in _TOKENIZER}
    return tokenizer


def save_tokenizer(tokenizer: Any, directory: Path, *, template: bool = True) -> None:
    """Save a tokenizer with the pad token and the sides it came with, and with its chat template unless told not to."""
    came = dict(getattr(tokenizer, "as_it_came", {}))
    if not template:
        came.pop("chat_template", None)
    now = {name: getattr(tokenizer, name, None) for name in came}
    try:
        for name, value in came.items():
            setattr(tokenizer, name, value)
        tokenizer.save_pretrained(directory)
    finally:
        for name, value in now.items():
            setattr(tokenizer, name, value)


def save_model(write: Callable[[str], None], model: Any, tokenizer: Any, directory: Path) -> list[str]:
    """Save weights as safetensors, an adapter's or all, with their tokenizer; returns notes for the report.

    The directory appears whole, in place of any other. Raises OutputError where it cannot be written.

    `write` is a Trainer's `save_model`, which also gathers weights that are spread over processes, or a model's
    `save_pretrained`. Whole weights are saved in the dtype that they came in (see `load_model`), and the model's own
    are rounded to it: what is measured afterwards is what lies on disk. Weights that are spread over processes are
    saved as they are.
    """
    whole, base = unwrapped(model), base_model(model)
    came, now = getattr(base, "as_it_came", None), AsItCame.of(base)
    adapter = hasattr(whole, "peft_config")
    dtype = None if came is None or adapter or is_sharded(base) else came.dtype
    notes = []
    if adapter:
        notes += _prepare_adapter(whole, base)
    if came is not None:
        came.put_back(base)
    with held_by_first(whole_directory(directory)) as partial:
        try:
            with _rounded_to(base, dtype) as changed, saved_quietly():
                write(str(partial))
        finally:
            now.put_back(base)
        on_first_rank(save_tokenizer, tokenizer, partial)
        for name in _LEFT_BEHIND:
            (partial / name).unlink(missing_ok=True)
    if changed:
        kind = str(dtype).removeprefix("torch.")
        notes.append(f"the weights are saved in {kind}, as they came, and measured as saved; see --dtype for another")
    return notes


def _prepare_adapter(model: Any, base: Any) -> list[str]:
    """Let an adapter name its base by an absolute path, and say so where other programs would merge it wrongly."""
    for config in model.peft_config.values():
        named = Path(str(config.base_model_name_or_path or "")).expanduser()
        if config.base_model_name_or_path and named.is_dir():
            config.base_model_name_or_path = str(named.resolve())
    head = base.get_output_embeddings()
    if not getattr(base.config.get_text_config(), "tie_word_embeddings", False) or not hasattr(head, "base_layer"):
        return []
    return [
        "the adapter changes an output layer that shares its weights with the embedding: merge it with unteach, which "
        "parts the two; a program that merges it into the shared weights makes another model (peft issue 2777)"
    ]


@contextmanager
def _rounded_to(model: Any, dtype: torch.dtype | None) -> Iterator[bool]:
    """Hold wider weights in `dtype` within the block; afterwards they are in their own again, rounded."""
    wider = []
    if dtype is not None:
        size = dtype.itemsize
        wider = [(w, w.dtype) for w in model.parameters() if w.is_floating_point() and w.dtype.itemsize > size]
    try:
        for weight, _ in wider:
            weight.data = weight.data.to(dtype)
        yield bool(wider)
    finally:
        for weight, own in wider:
            weight.data = weight.data.to(own)
