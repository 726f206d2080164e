"""What a judge gets and gives: a case, a verdict, and how far the judge can be trusted."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class Case:
    """A reply to be judged, with what is known about its prompt.

    `bad` is an unwanted reply to this prompt and `good` a right one, where the row has them. `cut` says that the model
    had not ended the reply; `bad` and `good` are then no longer than the reply. `unsaid` says that it was cut inside a
    thought, so that nothing is known of what it would have said.
    """

    prompt: str
    reply: str
    bad: str | None = None
    good: str | None = None
    concept: str | None = None
    cut: bool = False
    unsaid: bool = False


LEAST_ACCURACY = 0.75
"""A judge is called poor where its balanced accuracy may be below this: halfway between chance (0.5) and 1."""


@dataclass(frozen=True)
class Quality:
    """How far a judge can be trusted, measured on `n` replies whose verdict was known and that it had not seen.

    `accuracy` is balanced: the mean of the share of bad replies and the share of good replies that it judged rightly,
    as a fraction of those that it could judge. `low` and `high` are its 95 % interval, None where it is not known.
    `note` says what it was measured on and what that leaves open.
    """

    accuracy: float
    low: float | None
    high: float | None
    n: int
    note: str = ""

    @property
    def poor(self) -> bool:
        """Whether the accuracy may be below `LEAST_ACCURACY`."""
        return (self.accuracy if self.low is None else self.low) < LEAST_ACCURACY
