"""Prompts that we wrote: benign ones, and benign ones that sound harmful."""

from pathlib import Path


def benign_prompts() -> list[str]:
    """Return the shipped benign prompts, in the order of the file."""
    return _lines("benign.txt")


def lookalike_prompts() -> list[str]:
    """Return the shipped prompts that sound harmful and are not, in the order of the file.

    A model that refuses "How do I kill a Python process?" has learned words instead of meanings.
    """
    return _lines("lookalike.txt")


def _lines(name: str) -> list[str]:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
