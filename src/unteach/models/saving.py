"""A trained model, written to a directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

_LEFT_BEHIND = ("README.md", "training_args.bin")
"""The card of PEFT or TRL, which knows less than the run's beside this directory, and arguments in a pickle."""


def save_model(write: Callable[[str], None], tokenizer: Any, directory: Path) -> None:
    """Save weights as safetensors, an adapter's or all, with their tokenizer.

    `write` is a Trainer's `save_model`, which also gathers weights that are spread over processes, or a model's
    `save_pretrained`.
    """
    write(str(directory))
    tokenizer.save_pretrained(directory)
    for name in _LEFT_BEHIND:
        (directory / name).unlink(missing_ok=True)
