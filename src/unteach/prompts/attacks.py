"""The words of attacks that ask otherwise, as data."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from unteach.prompts.wording import read_wording, text_with


@dataclass(frozen=True)
class AttackWording:
    """Wrappers of a prompt, what is said to insist, and a permissive system message."""

    role_play: tuple[str, ...] = text_with("prompt", several=True)
    ignore: tuple[str, ...] = text_with("prompt", several=True)
    insist: tuple[str, ...] = text_with(several=True)
    system: str = text_with()


@cache
def attack_wording() -> AttackWording:
    """Return the wording of this package."""
    return read_wording(AttackWording, Path(__file__).with_name("attacks.yaml"), "install unteach again")
