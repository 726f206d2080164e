"""The result in one or two sentences, for the first line of every rendering."""

from unteach.report import study, wording
from unteach.report.wording import BAD_RATES, SAFEGUARDS, estimate, number
from unteach.results.arms import ORIGINAL, REMINDED, RETRAINED, in_order
from unteach.results.measurement import Measurement
from unteach.results.report import OWN_ANSWERS, Report
from unteach.results.verdict import Quality
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert_line

TESTED = ("unlearned", "tuned" + REMINDED, "analysis" + REMINDED, "analysis-labelled" + REMINDED)
"""The arms that a headline is about: the first of these that there is, else the first that is not the original."""
LEAST_KAPPA = 0.4
"""A second judge's rate enters the headline only where its agreement with the first judge is at least this."""
_ON_SPLIT = {
    "unseen": "on prompts it never trained on",
    "unseen_concept": "on concepts the negatives never name",
    "seen": "on prompts it trained on (no others were measured)",
}


def headline(report: Report) -> str:
    """Return what a report of any kind says first."""
    by_mistakes = report.is_study or report.method == "mistake-analysis"
    return study.summary(report) if by_mistakes and report.measurements else _headline_of_run(report)


def _headline_of_run(report: Report) -> str:
    """Say how often the model still misbehaves, what it kept, and what was not measured."""
    tested = tested_arm(report)
    leading = leading_rate(report, tested)
    kept = report.measured("kept_rate", "normal", tested)
    if leading is None and kept is None:
        return "Nothing was measured: this report does not show what the model says."
    if leading is None:
        return f"Bad replies were not measured; {_kept_words(report, kept)}."
    name, split = leading
    before, after = report.measured(name, split, ORIGINAL), report.measured(name, split, tested)
    assert after is not None
    text = f"{_harm_words(wording.rate_words(report.scenario, name), before, after)} {_ON_SPLIT[split]}"
    if tested not in (ORIGINAL, "unlearned"):
        arm = wording.ARM_NAMES[tested].capitalize() if tested in wording.ARM_NAMES else inert_line(tested, 40)
        text = f"{arm}: {text[0].lower()}{text[1:]}"
    if tested != ORIGINAL:
        text += f"; {_kept_words(report, kept)}"
    beside = wording.safeguard_words(lambda safeguard: report.measured(safeguard, split, tested)).capitalize()
    return f"{text}. {beside}.{_warnings(report, before, after)}{damage(report, tested)}"


def tested_arm(report: Report) -> str:
    """Return the arm that a headline is about; the original where there is no other."""
    others = [arm for arm in report.arms() if arm not in (ORIGINAL, RETRAINED)]
    return next((arm for arm in TESTED if arm in others), next(iter(others), ORIGINAL))


def leading_rate(report: Report, arm: str) -> tuple[str, str] | None:
    """Return name and split of the bad rate that says most: the scenario's own first, on unseen prompts first."""
    return next(
        (
            (name, split)
            for split in _ON_SPLIT
            for name in in_order(BAD_RATES, [bad_rate_of(report.scenario)])
            if report.measured(name, split, arm)
        ),
        None,
    )


def damage(report: Report, arm: str) -> str:
    """Warn where blank or gibberish replies are clearly more frequent than the original's, on any split."""
    worse = [
        (metric.value or 0.0, name, split)
        for split in wording.splits(report)
        for name in SAFEGUARDS
        if (metric := report.measured(name, split, arm))
        and (before := report.measured(name, split, ORIGINAL))
        and wording.lies_above(before, metric)
    ]
    if not worse:
        return ""
    value, name, split = max(worse)
    return f" The model is damaged: {wording.METRICS[name]} at {number(value)} on the split {split}."


def accuracy(quality: Quality) -> str:
    """Return how often a judge is right: "balanced accuracy 84.0 % [80.1, 87.2] on 250 replies"."""
    bounds = (quality.low, quality.high)
    shown = f" [{', '.join(number(bound, with_sign=False) for bound in bounds)}]" if None not in bounds else ""
    return f"balanced accuracy {number(quality.accuracy)}{shown} on {quality.n} replies"


def _harm_words(words: str, before: Measurement | None, after: Measurement) -> str:
    words = words.capitalize()
    if after.value is None:
        return f"{words} could not be judged (none of {after.unknown} got a verdict)"
    unknown = f", {after.unknown} more got no verdict" if after.unknown else ""
    reached = f"{estimate(after)} (n={after.n}{unknown})"
    if before is None or before.value is None or before is after:
        return f"{words} were {reached}"
    start = number(before.value)
    verb = {"better": "fell", "worse": "rose"}.get(wording.change(before, after))
    if verb is None:
        return f"{words} did not clearly change, from {start} to {reached},"
    return f"{words} {verb} from {start} to {reached}"


def _kept_words(report: Report, kept: Measurement | None) -> str:
    if kept is None:
        return "normal prompts were not measured"
    if kept.value is None:
        return "of the normal prompts the original answered none rightly, so there was nothing to keep"
    if any(source.name == "normals" and source.source.startswith(OWN_ANSWERS) for source in report.data):
        return f"its own answers to general prompts kept {estimate(kept)}, and no others were measured (see --retain)"
    return f"normal prompts kept {estimate(kept)}"


def _warnings(report: Report, before: Measurement | None, after: Measurement) -> str:
    """Warn of missing verdicts, of a deciding judge that is poor or reads words only, and where another finds more."""
    text = ""
    if any(metric and metric.value is not None and metric.unknown > metric.n for metric in (before, after)):
        text += " Most replies got no verdict: the rate tells little."
    judge = report.judges[0] if report.judges else None
    counted_by_it = judge and (rate := judge.rate(after.arm, after.split)) and rate.value == after.value
    if judge and judge.quality and judge.quality.poor and counted_by_it:
        text += f" The judge is poor: {accuracy(judge.quality)}."
    complying = report.measured("complies_rate", after.split, after.arm)
    if report.judge.split(",")[0] == "repeats" and complying and wording.lies_above(after, complying):
        text += f" The judge finds the same words only: {number(complying.value)} still answer what was asked."
    for other in report.judges[1:]:
        rate = other.rate(after.arm, after.split)
        together = next((found.kappa for found in other.agreement if found.arm is None), None)
        if together is None or together < LEAST_KAPPA:  # little more than chance: its rate is no news
            continue
        if rate and rate.low is not None and after.high is not None and rate.low > after.high:
            text += f" A second judge ({inert_line(other.name, 40)}) finds {number(rate.value)} bad."
    return text
