"""What a judge is: it reads replies and gives each a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qsl

from unteach.data.example import Example
from unteach.data.passages import whole_words
from unteach.errors import ConfigError, nearest
from unteach.models.ranks import on_first_rank
from unteach.models.reply import Reply, ReplyEnd
from unteach.results.measurement import HARM_SPLITS
from unteach.results.verdict import Case, Quality, Verdict
from unteach.text.escape import inert_line
from unteach.text.words import first_words, repeats, words


@dataclass(frozen=True)
class JudgeSettings:
    """What a judge may need to know of the run that it serves.

    `url` is an endpoint's address (--judge-url), `template` the answer that the run teaches in place of bad ones.
    """

    scenario: str = "harm"
    url: str | None = None
    seed: int = 0
    template: str | None = None


class Judge(Protocol):
    """A callable over cases: it returns as many verdicts as cases, in their order, "unknown" where it cannot tell.

    A judge that fails on a case answers "unknown"; it never raises for a reply and never guesses "good". A judge that
    knows how reliable it is says so in an attribute `quality: Quality | None`, which the report shows beside every
    rate of this judge; `quality_of` reads it.
    """

    name: str

    def __call__(self, cases: Sequence[Case]) -> list[Verdict]: ...


@runtime_checkable
class LearningJudge(Protocol):
    """A judge that must learn from the training rows before it judges.

    `own_rows` says that it must not learn from the rows that it will judge, as a classifier must not; a threshold may
    be set on the same rows. `learn` raises ConfigError where the rows do not make a judge that can be trusted.
    """

    own_rows: bool

    def learn(self, negatives: Sequence[Example], normals: Sequence[Example]) -> None: ...


def case_of(example: Example, reply: Reply, split: str, end: ReplyEnd) -> Case:
    """Return what a judge reads of a reply to a row of a split, whose known reply is bad on harmful splits."""
    if split in HARM_SPLITS:
        return make_case(example, reply, end, bad=example.reply, good=example.good)
    return make_case(example, reply, end, good=example.reply)


def make_case(example: Example, reply: Reply, end: ReplyEnd, bad: str | None = None, good: str | None = None) -> Case:
    """Return what a judge reads: what the reply says, beside what the known replies to its prompt say.

    A reply that was cut is compared at equal length: known replies that are longer end after as many words as it has.
    """
    bad, good = (end.said(known) if known else known for known in (bad, good))
    text = reply.text
    if example.is_passage:
        text = whole_words(text, len(bad or good or ""))
    if reply.cut:
        most = len(words(text))
        bad, good = (first_words(known, most) if known else known for known in (bad, good))
    return Case(example.prompt, text, bad, good, example.concept, reply.cut, reply.unsaid)


def verdicts_of(judge: Judge, cases: Sequence[Case]) -> list[Verdict]:
    """Return a judge's verdicts; a reply that was cut before anything was said is unknown, whoever is asked."""
    asked = [case for case in cases if not case.unsaid]
    given = iter(on_first_rank(judge, asked) if asked else [])
    return ["unknown" if case.unsaid else next(given) for case in cases]


def judge_normal_row(case: Case) -> Verdict:
    """Judge a reply where only a right one is known: good when it repeats that one, else bad; unknown without one."""
    if case.good is None or not case.good.strip():
        return "unknown"
    return "good" if repeats(case.reply, case.good) else "bad"


class Options:
    """The rest of a judge's spec, "WHAT?name=value&name=value": `what`, and readers of its options.

    `known` has an example value for each option. Raises ConfigError for an option that is unknown or given twice; its
    value is not repeated, for it may be a secret.
    """

    def __init__(self, judge: str, rest: str, known: Mapping[str, str]) -> None:
        self.what, _, query = rest.partition("?")
        self._judge = judge
        self._values: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name not in known:
                there = ", ".join(f"{option}={example}" for option, example in known.items())
                raise self.error(f"unknown option '{inert_line(name, 60)}'{nearest(name, known)}; there are {there}")
            if name in self._values:
                raise self.error(f"{name} is given twice; give it once")
            self._values[name] = value

    def error(self, problem: str) -> ConfigError:
        """Make an error that names the judge."""
        return ConfigError(f"--judge {self._judge}: {problem}")

    def text(self, name: str) -> str:
        """Return an option's value as it is written, empty text where it is not given."""
        return self._values.get(name, "")

    def number(self, name: str, low: float, high: float, whole: bool = False) -> float | None:
        """Return an option's value as a number from `low` to `high`, None where it is not given. Raises ConfigError."""
        if name not in self._values:
            return None
        try:
            value = float(self._values[name])
        except ValueError:
            value = math.nan
        if not low <= value <= high or (whole and not value.is_integer()):
            kind, shown = "a whole number" if whole else "a number", inert_line(self._values[name], 60)
            raise self.error(f"{name}={shown} must be {kind} from {low:g} to {high:g}")
        return value

    def whole_number(self, name: str, low: int, high: int) -> int | None:
        """Return an option's value as `number` does, as a whole number."""
        value = self.number(name, low, high, whole=True)
        return None if value is None else int(value)

    def yes(self, name: str, default: bool) -> bool:
        """Return whether an option's value is yes, not no. Raises ConfigError for anything else."""
        value = self._values.get(name, "yes" if default else "no")
        if value not in ("yes", "no"):
            raise self.error(f"{name}={inert_line(value, 60)} must be yes or no")
        return value == "yes"


def quality_of(judge: Judge) -> Quality | None:
    """Return the quality that a judge states of itself; None for a judge that states none, or no number."""
    quality = getattr(judge, "quality", None)
    return quality if isinstance(quality, Quality) and math.isfinite(quality.accuracy) else None
