"""The names of arms, their order, and how they are put into words."""

from collections.abc import Iterable

REMINDED = "+reminder"
"""What an arm's name ends in where the model was asked with the reminder."""

ARMS = {
    "original": "before (original)",
    "unlearned": "after (unlearned)",
    "original+reminder": "before, reminded",
    "tuned": "after tuning",
    "tuned+reminder": "after tuning, reminded",
    "retrained": "never taught",
}
"""The arms of a run, in reading order, and what a report calls them."""

OF_STUDY = {
    "sft": "SFT on good answers",
    "analysis": "analysis, mistakes induced",
    "analysis-both": "analysis of bad and good replies",
    "analysis-labelled": "analysis, mistakes labelled",
    "analysis-shuffled": "analysis, shuffled",
    "analysis-bad-learnt": "analysis, bad replies learnt",
    "analysis-sft": "analysis and SFT",
    "unlearning": "unlearning (npo-template)",
    "analysis-unlearning": "analysis, then unlearning",
    "unlearning-analysis": "unlearning, then analysis",
}
"""The arms of the study of learning from mistakes, in the order of its table, and what a report calls them."""


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names once each: those we know first and in our order, the rest as they came."""
    given = list(dict.fromkeys(names))
    first = [name for name in known if name in given]
    return first + [name for name in given if name not in first]


def title_of(arm: str) -> str | None:
    """Put the name of an arm of the study into words: "analysis, mistakes induced + reminder"; None for others."""
    name = arm.removesuffix(REMINDED)
    known = {"original": "original", "tuned": "after tuning"} | OF_STUDY
    if name not in known:
        return None
    return f"{known[name]} + reminder" if arm.endswith(REMINDED) else known[name]
