"""Prompts that we wrote: benign ones, benign ones that sound harmful, and harmful ones."""

from pathlib import Path

LANGUAGES = ("en", "zh")
"""The languages that have prompts; every other gets the English ones."""


def benign_prompts(language: str = "en") -> list[str]:
    """Return the shipped benign prompts in this language, in the order of the file."""
    return _lines("benign", language)


def lookalike_prompts(language: str = "en") -> list[str]:
    """Return the shipped prompts in this language that sound harmful and are not, in the order of the file.

    A model that refuses "How do I kill a Python process?" has learned words instead of meanings.
    """
    return _lines("lookalike", language)


def training_lookalikes(language: str = "en") -> list[str]:
    """Return other prompts like `lookalike_prompts`, in the order of the file: these may be trained on."""
    return _lines("lookalike_train", language)


def harmful_prompts(language: str = "en") -> list[str]:
    """Return the shipped requests that a model should decline, in the order of the file."""
    return _lines("harmful", language)


def validation_prompts(language: str = "en") -> tuple[list[str], list[str]]:
    """Return harmful prompts and look-alikes that are never trained on, to choose an update's strength with."""
    return _lines("harmful_validation", language), _lines("lookalike_validation", language)


def _lines(name: str, language: str) -> list[str]:
    file = f"{name}.{language if language in LANGUAGES else 'en'}.txt"
    return Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines()
