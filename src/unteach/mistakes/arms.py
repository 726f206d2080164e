"""The arms of the study: what each is tuned on, at an equal number of tokens."""

from dataclasses import dataclass
from typing import Literal

Analyses = Literal["induced", "labelled"]


@dataclass(frozen=True)
class Arm:
    """One way to change the model.

    `analyses` says whose mistakes were analysed; None for no analyses. `good` adds the analyses of good replies.
    `shuffled` gives every mistake the analysis of another, `learn_replies` trains on the bad replies too. `harmless`
    mixes good answers in. `unlearn` says whether the bad replies are unlearned as well, before or after the tuning, or
    instead of it; each of two stages then has half of the tokens.
    """

    summary: str
    analyses: Analyses | None = None
    good: bool = False
    shuffled: bool = False
    learn_replies: bool = False
    harmless: bool = False
    unlearn: Literal["before", "after", "only"] | None = None


ARMS: dict[str, Arm] = {
    "sft": Arm("SFT on good answers", harmless=True),
    "analysis": Arm("analysis, mistakes induced", "induced"),
    "analysis-both": Arm("analysis of bad and good replies", "induced", good=True),
    "analysis-labelled": Arm("analysis, mistakes labelled", "labelled"),
    "analysis-shuffled": Arm("analysis, shuffled", "induced", shuffled=True),
    "analysis-bad-learnt": Arm("analysis, bad replies learnt", "induced", learn_replies=True),
    "analysis-sft": Arm("analysis and SFT", "induced", harmless=True),
    "unlearning": Arm("unlearning (npo-template)", unlearn="only"),
    "analysis-unlearning": Arm("analysis, then unlearning", "induced", unlearn="after"),
    "unlearning-analysis": Arm("unlearning, then analysis", "induced", unlearn="before"),
}
"""By name, in the order of the table; `original` is always there. Each is measured without and with the reminder."""

REMINDED = "+reminder"
"""What an arm's name ends in where the model was asked with the reminder."""


def title_of(arm: str) -> str | None:
    """Put the name of an arm of the study into words: "analysis, mistakes induced + reminder"; None for others."""
    name = arm.removesuffix(REMINDED)
    known = {"original": "original", "tuned": "after tuning"} | {key: value.summary for key, value in ARMS.items()}
    if name not in known:
        return None
    return f"{known[name]} + reminder" if arm.endswith(REMINDED) else known[name]
