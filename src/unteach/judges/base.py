"""What a judge is: it reads replies and gives each a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qsl

from unteach.data.example import Example
from unteach.errors import ConfigError, nearest
from unteach.results.verdict import Case, Quality, Verdict
from unteach.text.escape import inert_line
from unteach.text.words import repeats


@dataclass(frozen=True)
class Setting:
    """What a judge may need to know of the run it serves; `url` is an endpoint's address (--judge-url)."""

    scenario: str = "harm"
    url: str | None = None
    seed: int = 0


class Judge(Protocol):
    """Callable over cases: as many verdicts as cases, in their order, "unknown" where it could not tell.

    A judge that fails on a case answers "unknown" for it; it never raises for a reply and never guesses "good".
    One that knows how far it can be trusted says so in an attribute `quality: Quality | None`, which the report
    shows beside every rate it judges; `quality_of` reads it.
    """

    name: str

    def __call__(self, cases: Sequence[Case]) -> list[Verdict]: ...


@runtime_checkable
class Learner(Protocol):
    """A judge that must see the training rows first: it may learn from these and from no others.

    `own_rows`: whether these must be other rows than it will judge, as for a classifier; a bar may come from the same.
    `learn` raises ConfigError where the rows do not make a judge that can be trusted.
    """

    own_rows: bool

    def learn(self, negatives: Sequence[Example], normals: Sequence[Example]) -> None: ...


def on_normal_row(case: Case) -> Verdict:
    """Judge a reply where only a right one is known: good when it repeats that one, else bad; unknown without one."""
    if case.good is None or not case.good.strip():
        return "unknown"
    return "good" if repeats(case.reply, case.good) else "bad"


def options_of(judge: str, rest: str, known: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Part "WHAT?name=value&name=value" into WHAT and its options; `known` has an example value for each name.

    Raises ConfigError for an option that is unknown or given twice.
    """
    what, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            there = ", ".join(f"{option}={example}" for option, example in known.items())
            raise ConfigError(
                f"--judge {inert_line(f'{judge}:{rest}', 200)}: unknown option '{inert_line(name, 60)}'"
                f"{nearest(name, known)}; there are {there}"
            )
        if name in options:
            raise ConfigError(f"--judge {judge}:{inert_line(rest, 200)}: {name} is given twice; give it once")
        options[name] = value
    return what, options


def number_in(judge: str, options: Mapping[str, str], name: str, low: float, high: float) -> float | None:
    """Return an option's value as a number from `low` to `high`, None where it is not given. Raises ConfigError."""
    if name not in options:
        return None
    try:
        value = float(options[name])
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        shown = inert_line(options[name], 60)
        raise ConfigError(f"--judge {judge}: {name}={shown} must be a number from {low:g} to {high:g}")
    return value


def quality_of(judge: Judge) -> Quality | None:
    """Return what a judge says of its own quality; None for a judge that says nothing, or no number."""
    quality = getattr(judge, "quality", None)
    return quality if isinstance(quality, Quality) and math.isfinite(quality.accuracy) else None
