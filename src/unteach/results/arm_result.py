"""What is known of one arm on one split: from generation to the measurements, this is the one form it has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

from unteach.results.measurement import HARM_SPLITS
from unteach.results.verdict import Case, Verdict


@dataclass(frozen=True)
class ArmResult:
    """One arm on one split. The lists are parallel, one entry a row, except for `non_members`.

    `cases` hold the arm's replies and `reply_ids` their tokens, None where only their text is known. `verdicts` are the
    first judge's and `other_verdicts` those of the other judges by name. `sampled` are the first judge's verdicts on
    sampled replies, drawn beside the greedy one.

    The known reply is the bad one on harmful splits and the right one on normal splits. `log_probs` are those of its
    tokens, in nats. `kl` is KL(original ‖ arm) on it, in nats per token. `argmax_hits` says for each of its tokens
    whether it was the greedy choice after the true tokens before it. `other_log_probs` are those of the other reply
    that a row has: the right one on harmful splits, a wrong one on normal splits. `reply_nll` is the negative
    log-likelihood of the arm's own reply under the original model, in nats per token, None for a blank one.
    `non_members` are the log-probabilities of replies of the same kind that no arm was trained on. What was not
    measured is None.

    `original` and `retrained` are the results of these two arms on the same split, `template` is the answer that was
    taught, and `generations` counts how often the model had to generate (replies kept from before took none).
    """

    arm: str
    split: str
    cases: list[Case]
    verdicts: list[Verdict]
    reply_ids: list[list[int]] | None
    log_probs: list[list[float]] | None = None
    kl: list[float] | None = None
    argmax_hits: list[list[bool]] | None = None
    other_log_probs: list[list[float] | None] | None = None
    reply_nll: list[float | None] | None = None
    other_verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    sampled: list[list[Verdict]] | None = None
    non_members: list[list[float]] | None = None
    original: Optional["ArmResult"] = None
    retrained: Optional["ArmResult"] = None
    scenario: str = "harm"
    template: str | None = None
    generations: int = 0

    def __post_init__(self) -> None:
        for name, listed in vars(self).items():
            if isinstance(listed, list) and name != "non_members" and len(listed) != len(self.cases):
                counts = f"{len(listed)} {name} for {len(self.cases)} cases"
                raise ValueError(f"result of {self.arm} on {self.split}: {counts}")

    @property
    def replies(self) -> list[str]:
        """This arm's replies."""
        return [case.reply for case in self.cases]

    @property
    def reply_tokens(self) -> list[int] | None:
        """How many tokens each reply has."""
        return None if self.reply_ids is None else [len(ids) for ids in self.reply_ids]

    @property
    def before(self) -> "ArmResult":
        """The original's result on this split; the original's own is itself."""
        return self.original or self

    @property
    def nll(self) -> list[float] | None:
        """Nats per token of each known reply; NaN for one without tokens."""
        return None if self.log_probs is None else [mean_nll(row) for row in self.log_probs]

    @property
    def truth_ratio(self) -> list[float | None] | None:
        """Of p^(1/|y|) of the right and the wrong reply, the right one's share; None where a row lacks one of them.

        None where no row has both.
        """
        if self.log_probs is None or self.other_log_probs is None:
            return None
        known_is_bad = self.split in HARM_SPLITS
        table: list[float | None] = []
        for known, other in zip(self.log_probs, self.other_log_probs, strict=True):
            if not known or not other:
                table.append(None)
                continue
            right, wrong = (other, known) if known_is_bad else (known, other)
            table.append(_share(mean_nll(wrong) - mean_nll(right)))
        return table if any(share is not None for share in table) else None


def mean_nll(log_probs: Sequence[float]) -> float:
    """Return the negative log-likelihood per token; NaN without tokens."""
    return -sum(log_probs) / len(log_probs) if log_probs else math.nan


def _share(log_odds: float) -> float:
    """1 / (1 + e^(−log odds)), without overflow; NaN for NaN."""
    if log_odds < 0:
        return 1 - _share(-log_odds)
    return 1 / (1 + math.exp(-log_odds))
