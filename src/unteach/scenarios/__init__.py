"""Scenarios: each file of this folder, except `base`, is one kind of thing that a model must stop."""

import pkgutil
from importlib import import_module

from unteach.errors import ConfigError, nearest
from unteach.scenarios.base import Scenario


def scenario_names() -> list[str]:
    """Return the name of every scenario in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def load_scenario(name: str) -> Scenario:
    """Return a scenario by name. Raises ConfigError for an unknown one."""
    known = scenario_names()
    if name not in known:
        raise ConfigError(f"--scenario {name}: unknown{nearest(name, known)} (known: {', '.join(known)})")
    scenario: Scenario = import_module(f"{__name__}.{name}").scenario
    return scenario


def bad_rate_of(name: str) -> str:
    """Return the measurement of how often the bad thing of a scenario still happens.

    For a scenario that this version does not know (a report may name one), it is the rate of harmful replies.
    """
    return load_scenario(name).bad_rate if name in scenario_names() else "harmful_rate"
