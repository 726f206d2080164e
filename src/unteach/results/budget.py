"""A budget of time, tokens or FLOPs, the plan that was made for it, and what was taken in the end."""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

Unit = Literal["seconds", "tokens", "flops"]

_PREFIXES = {prefix: 1000.0**power for power, prefix in enumerate(("", "k", "M", "G", "T", "P", "E"))}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_COUNT = re.compile(r"(\d+(?:\.\d+)?) ?([kKMGTPE]?) ?(tok|tokens?|FLOPs?)")


@dataclass(frozen=True)
class Budget:
    """So many seconds, tokens or model FLOPs, and how that was written."""

    text: str
    amount: float
    unit: Unit


def read_budget(text: str) -> Budget:
    """Read `90s`, `10m`, `1h30m`; `500ktok`, `3M tokens`; `50TFLOP`. Raises ValueError for anything else.

    A letter stands for minutes (m) or a million (M), as everywhere, so `m` cannot count tokens.
    """
    text = text.strip()
    if _TIME.fullmatch(text):
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
        return _positive(Budget(text, sum(float(number) * _SECONDS[unit] for number, unit in parts), "seconds"))
    if found := _COUNT.fullmatch(text):
        number, prefix, what = found.groups()
        amount = float(number) * _PREFIXES["k" if prefix == "K" else prefix]
        return _positive(Budget(text, amount, "flops" if what.startswith("FLOP") else "tokens"))
    raise ValueError("write a time (90s, 10m, 1h30m), tokens (500ktok, 3Mtok) or FLOPs (50TFLOP, 2PFLOP)")


def _positive(budget: Budget) -> Budget:
    if not 0 < budget.amount < float("inf"):
        raise ValueError("must be more than 0")
    return budget


class Plan(BaseModel):
    """How a run was fitted into a `budget`, as run.yaml and report.json hold it; all amounts are in its `unit`.

    `chosen` are the settings that the plan has changed, and `default` those that would have been without a budget.
    `at_most` is what each part of the run was planned to take; `taken` is what it took, empty before it ended. `note`
    says what was left out.
    """

    model_config = ConfigDict(extra="forbid")

    budget: str
    unit: Unit
    chosen: dict[str, int] = {}
    default: dict[str, int | None] = {}
    at_most: dict[str, float] = {}
    taken: dict[str, float] = {}
    note: str = ""
