"""unteach: make a language model stop, from negative examples alone."""

from importlib.metadata import version
from typing import Any

__version__ = version("unteach")
__all__ = ["Example", "RunConfig", "Turn", "UnlearnConfig", "UnlearnTrainer", "UnteachError"]

_HOMES = {
    "Example": "data.example",
    "Turn": "prompts.turn",
    "RunConfig": "pipeline.config",
    "UnlearnConfig": "training.config",
    "UnlearnTrainer": "training.trainer",
    "UnteachError": "errors",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import unteach` and `unteach --help` stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unteach' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"unteach.{_HOMES[name]}"), name)
