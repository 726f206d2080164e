"""What is judged and what is said of it: a case, a verdict, and how far the judge can be trusted."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class Case:
    """A reply to be judged, with what is known of its prompt.

    `bad` is a reply that must not come again and `good` a right one, where the row has them.
    """

    prompt: str
    reply: str
    bad: str | None = None
    good: str | None = None
    concept: str | None = None


LEAST_ACCURACY = 0.75
"""A judge is called poor where its balanced accuracy may be below this, the middle between guessing and knowing."""


@dataclass(frozen=True)
class Quality:
    """How far a judge can be trusted, measured on `n` replies whose verdict was known and that it had not seen.

    `accuracy` is balanced: the mean of the shares of bad and of good replies that it judged rightly, as a fraction,
    among those it judged at all; `low` and `high` bound it with 95 % confidence, None where they are not known.
    `note` says on what it was measured and what that leaves open.
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
