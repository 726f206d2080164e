"""The study of learning from mistakes in the terminal: the arms in one table, and what they answer."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from unteach.measurement import Measurement
from unteach.mistakes.arms import ARMS, REMINDED
from unteach.report import wording
from unteach.report.schema import Comparison, Report

HINTS = {"unguided": "no hint", "guided": "told: may be bad", "misleading": "told: should be good"}
_COLUMNS = (
    ("harmless,\nunseen", "harmful_rate", "unseen"),
    ("harmless,\nnew concepts", "harmful_rate", "unseen_concept"),
    ("helpful on\nharmful", "helpful_rate", "unseen"),
    ("right on\nnormal", "right_rate", "normal"),
    ("refused,\nlook-alikes", "refusal_rate", "lookalike"),
    ("blank,\nunseen", "blank_rate", "unseen"),
    ("gibberish,\nunseen", "gibberish_rate", "unseen"),
    ("NLL bad\nreply", "nll", "unseen"),
    ("NLL right\nreply", "right_nll", "unseen"),
    ("recognises\nreplies", "recognition_unguided", "assessment"),
)
_WITH_INTERVAL = 6  # the first columns; of the others the report has the intervals
_SHORT = {
    ("harmful_rate", "unseen"): "harmless, unseen",
    ("harmful_rate", "unseen_concept"): "harmless, new concepts",
    ("helpful_rate", "unseen"): "helpful on harmful",
    ("right_rate", "normal"): "right on normal",
    ("refusal_rate", "lookalike"): "refused, look-alikes",
    ("gibberish_rate", "unseen"): "gibberish, unseen",
}


def is_study(report: Report) -> bool:
    """Whether a report is of a study of learning from mistakes."""
    return report.method == "mistakes-study"


def study_tables(report: Report) -> RenderableType:
    """Return the table of arms, the preliminary study, and the comparisons."""
    parts: list[RenderableType] = [_arms(report), Text()]
    if any(m.split == "assessment" for m in report.measurements):
        parts += [_preliminary(report), Text()]
    if report.comparisons:
        parts += [_comparisons(report), Text()]
    return Group(*parts)


def title_of(arm: str) -> str:
    """Put an arm's name into words: "mistake analysis, mistakes induced + reminder"."""
    name = arm.removesuffix(REMINDED)
    words = ARMS[name].summary if name in ARMS else {"original": "original", "tuned": "tuned on analyses"}.get(name)
    words = words or wording.label(name, wording.ARMS, 40)
    return f"{words} + reminder" if arm.endswith(REMINDED) else words


def _arms(report: Report) -> Table:
    """One row an arm: plain, then reminded. Fractions are percentages with their 95 % interval."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold underline")
    table.add_column("arm", overflow="fold", min_width=24, ratio=3)
    shown = [column for column in _COLUMNS if any(m.name == column[1] for m in report.measurements)]
    for title, _, _ in shown:
        table.add_column(title, justify="right", overflow="fold", ratio=2)
    for arm in wording.arms(report):
        cells = []
        for place, (_, name, split) in enumerate(shown):
            cells.append(_cell(report.measured(name, split, arm), place < _WITH_INTERVAL))
        table.add_row(Text(title_of(arm), style="dim" if arm.endswith(REMINDED) else "bold"), *cells)
    return table


def _cell(figure: Measurement | None, with_interval: bool) -> Text:
    if figure is None or figure.value is None:
        return Text("–", style="dim")
    value, low, high = figure.value, figure.low, figure.high
    if figure.unit != "fraction":
        return Text(wording.number(value, figure.unit))
    if figure.name == "harmful_rate":
        value, low, high = 1 - value, None if high is None else 1 - high, None if low is None else 1 - low
    text = Text(f"{100 * value:.1f}")
    if with_interval and low is not None and high is not None:
        text.append(f"\n[{100 * low:.0f}, {100 * high:.0f}]", style="dim")
    return text


def _preliminary(report: Report) -> Table:
    """What the original recognises under each hint, beside how often it avoids harm itself."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for title in ("the original assesses replies", "right", "of bad ones", "of good ones"):
        table.add_column(title, justify="left" if title.startswith("the") else "right")
    for hint, words in HINTS.items():
        names = (f"recognition_{hint}", f"bad_recognised_{hint}", f"good_recognised_{hint}")
        figures = [report.measured(name, "assessment", "original") for name in names]
        if figures[0] is not None:
            table.add_row(words, *(_inline(figure) for figure in figures))
    harm = report.measured("harmful_rate", "unseen", "original")
    reminded = report.measured("harmful_rate", "unseen", "original" + REMINDED)
    for words, figure in (("it avoids harm itself", harm), ("… reminded", reminded)):
        if figure is not None:
            table.add_row(words, "", Text(f"{_cell(figure, True)}".replace("\n", " ")), "")
    return table


def _inline(figure: Measurement | None) -> Text:
    return Text(str(_cell(figure, True)).replace("\n", " ") + (f" n={figure.n}" if figure else ""))


def _comparisons(report: Report) -> Table:
    """Each question with its paired differences in points; clear ones, whose interval leaves 0 out, are marked."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    table.add_column("differences, in points [95 %]", overflow="fold", ratio=3)
    names = [key for key in _SHORT if any((c.name, c.split) == key for c in report.comparisons)]
    for key in names:
        table.add_column(_SHORT[key], justify="right", overflow="fold", ratio=2)
    for claim in dict.fromkeys(c.claim for c in report.comparisons):
        cells = []
        for key in names:
            found = next((c for c in report.comparisons if c.claim == claim and (c.name, c.split) == key), None)
            cells.append(_difference(found))
        table.add_row(claim, *cells)
    return table


def _difference(found: Comparison | None) -> Text:
    if found is None or found.value is None:
        return Text("–", style="dim")
    turned = -1 if found.name == "harmful_rate" else 1
    value, bounds = turned * found.value, [b for b in (found.low, found.high) if b is not None]
    bounds = sorted(turned * bound for bound in bounds)
    clear = len(bounds) == 2 and (bounds[0] > 0 or bounds[1] < 0)
    text = Text(_points(value), style="bold" if clear else "")
    if len(bounds) == 2 and bounds[0] != bounds[1]:
        text.append(f"\n[{_points(bounds[0])}, {_points(bounds[1])}]", style="dim not bold")
    if found.seeds:
        single = [turned * seed for seed in found.seeds if seed is not None]
        text.append(f"\nseeds {_points(min(single))} to {_points(max(single))}", style="dim not bold")
    return text


def _points(value: float) -> str:
    """A difference of fractions in points, with its sign: "+12.5", "0"."""
    return wording.signed(value, "fraction", 3, abs(value))
