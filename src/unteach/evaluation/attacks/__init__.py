"""Attacks: each file of this folder but `base` tries in one way to bring back what was unlearned, as `attack`."""

import pkgutil
from collections.abc import Sequence
from importlib import import_module

from unteach.errors import ConfigError, nearest
from unteach.evaluation.attacks.base import Attack

_ORDER = (
    *("as_asked", "relearning", "quantised", "pruned"),
    *("prefilled", "few_shot", "other_format", "role_play", "sampled", "second_turn"),
    *("refusal_direction", "logit_lens", "lookalikes_wrapped"),
)
"""The order of the card: weights, other ways to ask, a look inside, harmless neighbours; new ones come last."""


def attack_names() -> list[str]:
    """Return the name of every attack, in the order of the card."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


def load_attacks(only: Sequence[str] = ()) -> list[Attack]:
    """Return these attacks, or all. Raises ConfigError for an unknown name."""
    known = attack_names()
    for name in only:
        if name not in known:
            raise ConfigError(f"--only {name}: no such attack{nearest(name, known)}; there are {', '.join(known)}")
    return [import_module(f"{__name__}.{name}").attack for name in known if not only or name in only]


def attack_list() -> str:
    """Return all attacks, each with what it changes and what it asks."""
    return "\n".join(f"{one.name:<19} {one.changes:<8} {one.asks}" for one in load_attacks())
