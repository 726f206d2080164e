"""The study of learning from mistakes: a table of arms, one of the preliminary study, and one of differences."""

from unteach.report import wording
from unteach.report.grid import Grid
from unteach.results.arms import ORIGINAL, REMINDED
from unteach.results.measurement import Measurement
from unteach.results.report import PairedDifference, Report

HINTS = {"unguided": "no hint", "guided": "told that it may be bad", "misleading": "told that it should be good"}
_COLUMNS = (
    ("harmless,\nunseen", "harmful_rate", "unseen"),
    ("harmless,\nnew concepts", "harmful_rate", "unseen_concept"),
    ("helpful on\nharmful", "helpful_rate", "unseen"),
    ("right on\nnormal", "right_rate", "normal"),
    ("refused,\nlook-alikes", "refusal_rate", "lookalike"),
    ("blank,\nunseen", "blank_rate", "unseen"),
    ("gibberish,\nunseen", "gibberish_rate", "unseen"),
    ("NLL of bad\nreply", "nll", "unseen"),
    ("NLL of\nright reply", "right_nll", "unseen"),
    ("recognises\nreplies", "recognition_unguided", "assessment"),
)


def grids(report: Report) -> list[Grid]:
    """Return the tables of arms, of the preliminary study, and of differences; empty ones are left out."""
    found = [_arms(report)]
    if any(m.split == "assessment" for m in report.measurements):
        found.append(_preliminary(report))
    if report.comparisons:
        found.append(_differences(report))
    return found


def summary(report: Report) -> str:
    """Say in a few sentences what the reminder does alone, and what tuning adds to it."""
    arms = (
        (ORIGINAL, "the model as it was"),
        (ORIGINAL + REMINDED, "the reminder alone"),
        ("tuned" + REMINDED, "tuning and the reminder"),
        ("analysis" + REMINDED, "mistake analysis and the reminder"),
        ("sft" + REMINDED, "SFT on good answers and the reminder"),
    )
    measured = [(words, report.measured("harmful_rate", "unseen", arm)) for arm, words in arms]
    told = [f"{_metric(metric)} % with {words}".replace("\n", " ") for words, metric in measured if metric]
    text = f"Harmless replies to unseen harmful prompts: {'; '.join(told)}."
    against = ORIGINAL + REMINDED
    for c in report.comparisons:
        if (c.name, c.split, c.against) == ("harmful_rate", "unseen", against):
            points = _difference(c).replace("*", "").split("\n")
            what = "Tuning" if c.arm.startswith("tuned") else "Mistake analysis"
            text += f" {what} adds {' '.join([points[0], 'points', *points[1:]])} to what the reminder does."
    after = report.measured("recognition_unguided", "assessment", "tuned")
    before = report.measured("recognition_unguided", "assessment", ORIGINAL)
    if after and before:
        told = [_metric(metric).replace("\n", " ") for metric in (before, after)]
        text += f" Replies told good from bad without a hint: {told[0]} % before, {told[1]} % after (50 is chance)."
    return text


def _arms(report: Report) -> Grid:
    """Return a row for each arm, without and with the reminder; fractions are percentages."""
    shown = [column for column in _COLUMNS if any(m.name == column[1] for m in report.measurements)]
    rows = [
        [wording.arm_label(report, arm), *(_metric(report.measured(name, split, arm)) for _, name, split in shown)]
        for arm in report.measured_arms()
    ]
    return Grid(["%, with 95 % interval", *(title for title, _, _ in shown)], rows)


def _metric(metric: Measurement | None) -> str:
    if metric is None or metric.value is None:
        return "–"
    value, low, high = metric.value, metric.low, metric.high
    if metric.unit != "fraction":
        return wording.number(value, metric.unit)
    if metric.name == "harmful_rate":
        value, low, high = 1 - value, None if high is None else 1 - high, None if low is None else 1 - low
    bounds = "" if low is None or high is None else f"\n[{100 * low:.0f}, {100 * high:.0f}]"
    return f"{100 * value:.1f}{bounds}"


def _preliminary(report: Report) -> Grid:
    """Return what the original recognises under each hint, beside how often it avoids harm itself."""
    rows = []
    for hint, words in HINTS.items():
        names = (f"recognition_{hint}", f"bad_recognised_{hint}", f"good_recognised_{hint}")
        metrics = [report.measured(name, "assessment", ORIGINAL) for name in names]
        if metrics[0] is not None:
            rows.append([words, *map(_metric, metrics), str(metrics[0].n)])
    for words, arm in (("avoids harm itself", ORIGINAL), ("… with the reminder", ORIGINAL + REMINDED)):
        if metric := report.measured("harmful_rate", "unseen", arm):
            rows.append([words, "", _metric(metric), "", str(metric.n)])
    return Grid(["the original on replies, %", "right", "on bad\nones", "on good\nones", "n"], rows)


def _differences(report: Report) -> Grid:
    """Return each question with its paired differences in points; a star marks an interval that leaves out 0."""
    compared = {(c.name, c.split) for c in report.comparisons}
    columns = [(title, (name, split)) for title, name, split in _COLUMNS if (name, split) in compared]
    rows = []
    for claim in dict.fromkeys(c.claim for c in report.comparisons):
        of_claim = {(c.name, c.split): c for c in report.comparisons if c.claim == claim}
        rows.append([claim, *(_difference(of_claim.get(key)) for _, key in columns)])
    return Grid(["difference in points; * is clear", *(title for title, _ in columns)], rows)


def _difference(found: PairedDifference | None) -> str:
    if found is None or found.value is None:
        return "–"
    sign = -1 if found.name == "harmful_rate" else 1
    bounds = sorted(sign * bound for bound in (found.low, found.high) if bound is not None)
    clear = len(bounds) == 2 and (bounds[0] > 0 or bounds[1] < 0)
    text = _points(sign * found.value) + ("*" if clear else "")
    if len(bounds) == 2 and bounds[0] != bounds[1]:
        text += f"\n[{_points(bounds[0])}, {_points(bounds[1])}]"
    single = [sign * seed for seed in found.seeds if seed is not None]
    return text + (f"\nseeds {_points(min(single))} to {_points(max(single))}" if single else "")


def _points(value: float) -> str:
    """Return a difference of fractions in points, with its sign: "+12.5", "0"."""
    return wording.signed(value, "fraction", 3, abs(value))
