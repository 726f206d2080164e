"""The arms of the study: what each is tuned on, at an equal number of tokens."""

from dataclasses import dataclass
from typing import Literal

Analyses = Literal["induced", "labelled"]


@dataclass(frozen=True)
class Arm:
    """One way to change the model.

    `analyses` says which mistakes were analysed; None for no analyses. `good` adds the analyses of good replies,
    `shuffled` gives every mistake the analysis of another, `learn_replies` trains on the bad replies too, `harmless`
    mixes good answers in. `unlearn` says whether the bad replies are unlearned too: before or after the tuning, each
    with half of the tokens, or instead of it.
    """

    analyses: Analyses | None = None
    good: bool = False
    shuffled: bool = False
    learn_replies: bool = False
    harmless: bool = False
    unlearn: Literal["before", "after", "only"] | None = None


ARMS: dict[str, Arm] = {
    "sft": Arm(harmless=True),
    "analysis": Arm("induced"),
    "analysis-both": Arm("induced", good=True),
    "analysis-labelled": Arm("labelled"),
    "analysis-shuffled": Arm("induced", shuffled=True),
    "analysis-bad-learnt": Arm("induced", learn_replies=True),
    "analysis-sft": Arm("induced", harmless=True),
    "unlearning": Arm(unlearn="only"),
    "analysis-unlearning": Arm("induced", unlearn="after"),
    "unlearning-analysis": Arm("induced", unlearn="before"),
}
"""By name, in the order of the table. Each is evaluated without and with the reminder, and so is the original."""
