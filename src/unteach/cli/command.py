"""What verbs and groups of verbs are made of: how they show their help, and what they do before they start."""

import importlib
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import typer
import typer.core

from unteach.progress import track


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, what is to be said of that, and whether a signal was the reason."""

    code: int
    message: str = ""
    interrupted: bool = False


def quiet() -> None:
    """Silence libraries that report through bars and log lines of their own; they read these when they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # PEFT 0.21 asks for a property that Transformers 5 has renamed.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
    # Accelerate 1.15 sets what torch 2.13 has renamed.
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    # DeepSpeed, where it is installed, warns of a machine without a GPU, in every run.
    logging.getLogger("DeepSpeed").addFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


class _HelpWithoutItself:
    """Leaves --help out of the list of flags, since the reader has just typed it."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.hidden = True
        return option


class Command(_HelpWithoutItself, typer.core.TyperCommand):
    """A verb; its function is called, and may import what is slow, only once its flags have been read."""

    def invoke(self, ctx: Any) -> Any:
        quiet()
        return super().invoke(ctx)


class ModelCommand(Command):
    """A verb that works with models: on a terminal it shows that their libraries are read, which takes seconds."""

    def invoke(self, ctx: Any) -> Any:
        quiet()
        if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
            with track("loading the libraries"):
                importlib.import_module("transformers.trainer")
        return super().invoke(ctx)


class Group(_HelpWithoutItself, typer.core.TyperGroup):
    """Several verbs under one word."""


def new_group(**settings: Any) -> typer.Typer:
    """Make a group of verbs; without a verb it shows its help."""
    return typer.Typer(cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode="rich", **settings)
