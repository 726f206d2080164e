"""What a probe is: a question about one arm on one split, answered by measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from unteach.judges.base import Case, Verdict
from unteach.measurement import HARM_SPLITS, Better, Measurement
from unteach.stats import bootstrap, wilson

NORMAL_SPLITS = frozenset({"normal", "lookalike"})
ALL_SPLITS = NORMAL_SPLITS.union(HARM_SPLITS)


@dataclass(frozen=True)
class Evidence:
    """All that is known of one arm on one split; the lists are parallel.

    `cases` hold this arm's replies and `reply_tokens` their lengths. The known reply is the bad one on harmful splits
    and the right one on normal splits: `nll` and `kl` (original to arm) are nats per token on it, and `argmax_hits`
    says for each of its tokens whether it was the greedy choice after the true tokens before it. `reply_nll` is nats
    per token of this arm's own reply under the original model, None for a blank one. A list that was not taken is
    None.
    """

    arm: str
    split: str
    cases: list[Case]
    verdicts: list[Verdict]
    original_replies: list[str]
    original_verdicts: list[Verdict]
    reply_tokens: list[int]
    nll: list[float] | None = None
    kl: list[float] | None = None
    argmax_hits: list[list[bool]] | None = None
    reply_nll: list[float | None] | None = None

    def __post_init__(self) -> None:
        for name, listed in vars(self).items():
            if isinstance(listed, list) and len(listed) != len(self.cases):
                counts = f"{len(listed)} {name} for {len(self.cases)} cases"
                raise ValueError(f"evidence of {self.arm} on {self.split}: {counts}")

    @property
    def replies(self) -> list[str]:
        """This arm's replies."""
        return [case.reply for case in self.cases]


class Probe(Protocol):
    """One question. `splits` names the splits it makes sense on; on others it is not asked.

    A probe file holds one as `probe`. Its docstring states definition, unit, direction, source, and the value for an
    untouched model, that is for the original as its own arm.
    """

    name: str
    splits: frozenset[str]

    def __call__(self, evidence: Evidence) -> list[Measurement]: ...


def rate(evidence: Evidence, name: str, holds: Sequence[bool | None], better: Better) -> Measurement:
    """Return the share of cases for which something holds, with a Wilson interval; None counts as unknown."""
    known = [held for held in holds if held is not None]
    value, low, high = wilson(sum(known), len(known))
    return Measurement(
        name=name,
        split=evidence.split,
        arm=evidence.arm,
        value=value,
        low=low,
        high=high,
        n=len(known),
        unknown=len(holds) - len(known),
        unit="fraction",
        better=better,
    )


def mean(
    evidence: Evidence, name: str, values: Sequence[float | None], unit: str, better: Better
) -> Measurement:
    """Return the mean over cases with a bootstrap interval; None, NaN and infinity count as unknown."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    value, low, high = bootstrap(known)
    return Measurement(
        name=name,
        split=evidence.split,
        arm=evidence.arm,
        value=value,
        low=low,
        high=high,
        n=len(known),
        unknown=len(values) - len(known),
        unit=unit,
        better=better,
    )
