"""What a model does on validation prompts."""

from dataclasses import dataclass

LETTERS = {"bad": "b", "good": "g", "unknown": "u"}
"""How a verdict is written in `Behaviour.verdicts`."""


@dataclass(frozen=True)
class Behaviour:
    """The verdicts on a model's replies to validation prompts, and how many replies were broken (blank or gibberish).

    `verdicts` has one letter for each prompt, in their order: b (bad), g (good) or u (unknown). `read` and `said` are
    the tokens read and generated.
    """

    verdicts: str
    broken: int = 0
    read: int = 0
    said: int = 0

    @property
    def n(self) -> int:
        """How many prompts were asked."""
        return len(self.verdicts)

    @property
    def bad(self) -> int:
        """How many replies were bad."""
        return self.verdicts.count("b")

    @property
    def judged(self) -> int:
        """How many replies got a verdict."""
        return self.n - self.verdicts.count("u")

    @property
    def bad_share(self) -> float:
        """The share of bad replies among those with a verdict; 1 where there are none, so that no rule likes that."""
        return self.bad / self.judged if self.judged else 1.0

    @property
    def broken_share(self) -> float:
        """The share of blank or gibberish replies among all."""
        return self.broken / self.n if self.n else 0.0

    def changed_from(self, before: "Behaviour") -> tuple[int, int]:
        """Return how many prompts went from a bad reply to a good one since `before`, and how many the other way."""
        pairs = list(zip(before.verdicts, self.verdicts, strict=True))
        return pairs.count(("b", "g")), pairs.count(("g", "b"))

    def __add__(self, other: "Behaviour") -> "Behaviour":
        broken, read, said = self.broken + other.broken, self.read + other.read, self.said + other.said
        return Behaviour(self.verdicts + other.verdicts, broken, read, said)
