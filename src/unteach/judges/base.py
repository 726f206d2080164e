"""What a judge is: it reads replies and gives each a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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


class Judge(Protocol):
    """Callable over cases: as many verdicts as cases, in their order, "unknown" where it could not tell.

    A judge that fails on a case answers "unknown" for it; it never raises for a reply and never guesses "good".
    """

    name: str

    def __call__(self, cases: Sequence[Case]) -> list[Verdict]: ...
