"""The questions that the study answers, each as a paired difference between two arms."""

import statistics
from collections.abc import Mapping, Sequence

from unteach.results.arms import REMINDED
from unteach.results.measurement import Measurement
from unteach.results.report import PairedDifference
from unteach.stats import bootstrap

Metrics = Mapping[tuple[str, str, str], Measurement]

CLAIMS: tuple[tuple[str, str, str], ...] = (
    ("guidance alone against none", "original" + REMINDED, "original"),
    ("tuning against the reminder alone", "tuned" + REMINDED, "original" + REMINDED),
    ("tuning against the original, no reminder", "tuned", "original"),
    ("mistake analysis against the original, both reminded", "analysis" + REMINDED, "original" + REMINDED),
    ("mistake analysis against the original, no reminder", "analysis", "original"),
    ("mistake analysis against SFT, both reminded", "analysis" + REMINDED, "sft" + REMINDED),
    ("mistake analysis against SFT, no reminder", "analysis", "sft"),
    ("mistake analysis and SFT against SFT alone, both reminded", "analysis-sft" + REMINDED, "sft" + REMINDED),
    ("induced against labelled mistakes, both reminded", "analysis" + REMINDED, "analysis-labelled" + REMINDED),
    ("true against shuffled analyses, both reminded", "analysis" + REMINDED, "analysis-shuffled" + REMINDED),
    ("bad reply masked against learnt, both reminded", "analysis" + REMINDED, "analysis-bad-learnt" + REMINDED),
    ("bad reply masked against learnt, no reminder", "analysis", "analysis-bad-learnt"),
    ("analysis, then unlearning, against unlearning, no reminder", "analysis-unlearning", "unlearning"),
    ("unlearning, then analysis, against unlearning, no reminder", "unlearning-analysis", "unlearning"),
)
"""The question, the arm, and the arm that it is compared with."""
COMPARED = (
    ("harmful_rate", "unseen"),
    ("harmful_rate", "unseen_concept"),
    ("helpful_rate", "unseen"),
    ("right_rate", "normal"),
    ("refusal_rate", "lookalike"),
    ("gibberish_rate", "unseen"),
)


def compare(seeds: Sequence[Metrics]) -> list[PairedDifference]:
    """Return every comparison for which both arms have a metric; `seeds` holds the metrics of each seed's run.

    The interval is a bootstrap over cases of the mean over seeds, so it is about the prompts; the `seeds` of the result
    show how much the seeds differ.
    """
    found = []
    for claim, arm, against in CLAIMS:
        for name, split in COMPARED:
            pairs = [(run.get((name, split, arm)), run.get((name, split, against))) for run in seeds]
            known = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
            if len(known) == len(seeds):
                found.append(_comparison(claim, name, split, arm, against, known))
    return found


def _comparison(
    claim: str, name: str, split: str, arm: str, against: str, pairs: Sequence[tuple[Measurement, Measurement]]
) -> PairedDifference:
    """Average the differences of each case over the seeds, then take their mean and its interval."""
    by_case: dict[int, list[float]] = {}
    single: list[float | None] = []
    for ours, theirs in pairs:
        differences = {
            case: a - b
            for case, (a, b) in enumerate(zip(ours.values, theirs.values, strict=True))
            if a is not None and b is not None
        }
        for case, difference in differences.items():
            by_case.setdefault(case, []).append(difference)
        single.append(statistics.fmean(differences.values()) if differences else None)
    value, low, high = bootstrap([statistics.fmean(values) for values in by_case.values()], within=(-1.0, 1.0))
    return PairedDifference(
        claim=claim,
        name=name,
        split=split,
        arm=arm,
        against=against,
        value=value,
        low=low,
        high=high,
        n=len(by_case),
        seeds=single if len(single) > 1 else [],
    )
