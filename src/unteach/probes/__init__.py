"""Probes: each file of this folder but `base` holds one question about a model as `probe`."""

import pkgutil
from importlib import import_module

from unteach.probes.base import Probe


def all_probes() -> list[Probe]:
    """Return the probe of every file in this folder, by file name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return [import_module(f"{__name__}.{name}").probe for name in names]
