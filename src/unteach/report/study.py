"""The study of learning from mistakes: the arms in one table, the preliminary study, and what the arms answer."""

from rich.console import RenderableType

from unteach.report import wording
from unteach.report.grid import Grid, rendered
from unteach.results.arms import REMINDED
from unteach.results.measurement import Measurement
from unteach.results.report import Comparison, Report

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
_COMPARED = {
    ("harmful_rate", "unseen"): "harmless,\nunseen",
    ("harmful_rate", "unseen_concept"): "harmless,\nnew concepts",
    ("helpful_rate", "unseen"): "helpful on\nharmful",
    ("right_rate", "normal"): "right on\nnormal",
    ("refusal_rate", "lookalike"): "refused,\nlook-alikes",
    ("gibberish_rate", "unseen"): "gibberish,\nunseen",
}


def is_study(report: Report) -> bool:
    """Whether a report is of a study of learning from mistakes."""
    return report.method == "mistakes-study"


def grids(report: Report) -> list[Grid]:
    """Return the table of arms, the preliminary study, and the comparisons; those of which there is something."""
    found = [_arms(report)]
    if any(m.split == "assessment" for m in report.measurements):
        found.append(_preliminary(report))
    if report.comparisons:
        found.append(_comparisons(report))
    return found


def headline(report: Report) -> str:
    """Return what a report of any kind has to say first."""
    by_mistakes = is_study(report) or report.method == "mistake-analysis"
    return summary(report) if by_mistakes and report.measurements else wording.headline(report)


def summary(report: Report) -> str:
    """Return a study or a run in a few sentences: what the reminder does alone, and what tuning adds to it."""
    arms = (
        ("original", "the model as it was"),
        ("original" + REMINDED, "the reminder alone"),
        ("tuned" + REMINDED, "tuning and the reminder"),
        ("analysis" + REMINDED, "mistake analysis and the reminder"),
        ("sft" + REMINDED, "SFT on good answers and the reminder"),
    )
    found = [(words, report.measured("harmful_rate", "unseen", arm)) for arm, words in arms]
    told = [f"{_metric(metric)} % with {words}".replace("\n", " ") for words, metric in found if metric]
    text = f"Harmless replies to unseen harmful prompts: {'; '.join(told)}."
    against = "original" + REMINDED
    for c in report.comparisons:
        if (c.name, c.split, c.against) == ("harmful_rate", "unseen", against):
            points = _difference(c).replace("*", "").split("\n")
            what = "Tuning" if c.arm.startswith("tuned") else "Mistake analysis"
            text += f" {what} adds {' '.join([points[0], 'points', *points[1:]])} to what the reminder does."
    after = report.measured("recognition_unguided", "assessment", "tuned")
    before = report.measured("recognition_unguided", "assessment", "original")
    if after and before:
        told = [_metric(metric).replace("\n", " ") for metric in (before, after)]
        text += f" Replies told good from bad without a hint: {told[0]} % before, {told[1]} % after (50 is chance)."
    return text


def rendered_grids(report: Report) -> RenderableType:
    """Return the tables for a terminal."""
    return rendered(grids(report))


def _arms(report: Report) -> Grid:
    """One row an arm, without and with the reminder; fractions are percentages."""
    shown = [column for column in _COLUMNS if any(m.name == column[1] for m in report.measurements)]
    arms = [arm for arm in report.arms() if any(m.arm == arm for m in report.measurements)]
    rows = [
        [wording.arm_label(report, arm), *(_metric(report.measured(name, split, arm)) for _, name, split in shown)]
        for arm in arms
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
    """What the original recognises under each hint, beside how often it avoids harm itself."""
    rows = []
    for hint, words in HINTS.items():
        names = (f"recognition_{hint}", f"bad_recognised_{hint}", f"good_recognised_{hint}")
        metrics = [report.measured(name, "assessment", "original") for name in names]
        if metrics[0] is not None:
            rows.append([words, *map(_metric, metrics), str(metrics[0].n)])
    for words, arm in (("avoids harm itself", "original"), ("… with the reminder", "original" + REMINDED)):
        if metric := report.measured("harmful_rate", "unseen", arm):
            rows.append([words, "", _metric(metric), "", str(metric.n)])
    return Grid(["the original on replies, %", "right", "on bad\nones", "on good\nones", "n"], rows)


def _comparisons(report: Report) -> Grid:
    """Each question with its paired differences in points; clear ones, whose interval leaves 0 out, end in a star."""
    names = [key for key in _COMPARED if any((c.name, c.split) == key for c in report.comparisons)]
    rows = []
    for claim in dict.fromkeys(c.claim for c in report.comparisons):
        of_claim = {(c.name, c.split): c for c in report.comparisons if c.claim == claim}
        rows.append([claim, *(_difference(of_claim.get(key)) for key in names)])
    return Grid(["difference in points; * is clear", *(_COMPARED[key] for key in names)], rows)


def _difference(found: Comparison | None) -> str:
    if found is None or found.value is None:
        return "–"
    turned = -1 if found.name == "harmful_rate" else 1
    bounds = sorted(turned * bound for bound in (found.low, found.high) if bound is not None)
    clear = len(bounds) == 2 and (bounds[0] > 0 or bounds[1] < 0)
    text = _points(turned * found.value) + ("*" if clear else "")
    if len(bounds) == 2 and bounds[0] != bounds[1]:
        text += f"\n[{_points(bounds[0])}, {_points(bounds[1])}]"
    single = [turned * seed for seed in found.seeds if seed is not None]
    return text + (f"\nseeds {_points(min(single))} to {_points(max(single))}" if single else "")


def _points(value: float) -> str:
    """A difference of fractions in points, with its sign: "+12.5", "0"."""
    return wording.signed(value, "fraction", 3, abs(value))
