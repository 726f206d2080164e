"""Baselines: each file of this folder but those in BELOW holds one or more of them in `baselines`."""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from unteach.errors import ConfigError, nearest

if TYPE_CHECKING:  # the command line reads the settings of baselines, and need not wait for TRL
    from unteach.baselines.base import Baseline

BELOW = ("base", "baseline_run", "config", "material", "rows", "run", "stages")


def all_baselines() -> "dict[str, Baseline]":
    """Return every baseline by name."""
    files = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in BELOW]
    found = {made.name: made for file in files for made in import_module(f"{__name__}.{file}").baselines}
    return dict(sorted(found.items()))


def load_baseline(name: str) -> "Baseline":
    """Return a baseline by name. Raises ConfigError for an unknown one."""
    known = all_baselines()
    if name not in known:
        raise ConfigError(f"baseline {name}: unknown{nearest(name, known)} (known: {', '.join(known)})")
    return known[name]
