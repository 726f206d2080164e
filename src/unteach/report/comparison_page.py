"""The page of a comparison: arms beside each other, rate against cost, rate against what is kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from unteach.comparison.compare import ORIGINAL, RETRAINED, ArmCost, Compared, Rate, Row
from unteach.comparison.matched import by_seed, reached
from unteach.report import html, plots, wording
from unteach.report.compared import paragraph, write_beside
from unteach.report.outcome import FEW, KEPT
from unteach.report.page import FILE_NAME
from unteach.results.arms import REMINDED
from unteach.results.report import Waypoint
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert_line

_COLUMNS = {
    "bad_unseen": "{bad}, unseen prompts",
    "bad_unseen_concept": "{bad}, unseen concepts",
    "bad_seen": "{bad}, seen prompts",
    "kept_normal": "{kept}, normal prompts",
    "refusal_lookalike": "refused, look-alikes",
}
_CLOSE = 0.2  # powers of ten; names nearer than this would overlap
_MOST_TOGETHER = 6  # more arms than these get a plot each
_NEAR = 0.06  # of an axis; points nearer than this share a label


@dataclass(frozen=True)
class Line:
    """One arm of the table: its colour's number, its name, its metrics, and what it cost, each with its share."""

    series: int
    name: str
    cells: list[html.Cell | None]
    costs: list[tuple[str, str]]


@dataclass(frozen=True)
class Figure:
    """A plot with its heading and what it says in words."""

    title: str
    svg: Markup
    caption: str
    wide: bool = False


def write_comparison_page(compared: Compared, path: Path) -> Path:
    """Write the comparison as one HTML file.

    Raises ConfigError for the page of a run that is compared, OutputError where the file cannot be written.
    """
    return write_beside(compared, path, comparison_page(compared), "--html", FILE_NAME, "page")


def comparison_page(compared: Compared) -> str:
    """The comparison as HTML; every name in it is escaped and made inert."""
    keys = [key for key in _COLUMNS if any(row.rates.get(key) for row in compared.rows)]
    return html.whole(
        "comparison.html.jinja",
        compared=compared,
        bad=_bad_words(compared),
        summary=_summary(compared),
        paragraph=paragraph(compared),
        titles=[_title(compared, key) for key in keys],
        cost_titles=_cost_titles(compared),
        lines=[_line(compared, row, place, keys) for place, row in enumerate(compared.rows)],
        metrics=[metric for metric in (_on_the_way(compared), _in_the_end(compared), _kept(compared)) if metric],
    )


def _bad_words(compared: Compared) -> str:
    own = bad_rate_of(compared.scenario)
    return wording.BAD_RATES.get(own, "bad replies")


def _title(compared: Compared, key: str) -> str:
    names = {rate.name for row in compared.rows if (rate := row.rates.get(key))}
    kept = "answered rightly" if names == {"right_rate"} else "answers kept"
    n = _same_count(compared, key)
    return _COLUMNS[key].format(bad=_bad_words(compared), kept=kept) + (f" (n={n})" if n else "")


def _same_count(compared: Compared, key: str) -> int | None:
    """How many cases every arm's rate rests on; None where that differs."""
    counts = {rate.n for row in compared.rows if (rate := row.rates.get(key))}
    return counts.pop() if len(counts) == 1 else None


def _summary(compared: Compared) -> str:
    """Which arms no longer misbehave on unseen prompts, what that cost, and which lost normal answers by it."""
    trained = [row for row in compared.rows if row.arm.removesuffix(REMINDED) not in (ORIGINAL, RETRAINED)]
    gone = [row for row in trained if (rate := row.rates.get("bad_unseen")) and _most(rate) <= FEW]
    lost = [row for row in gone if (kept := row.rates.get("kept_normal")) and (kept.high or 1.0) < KEPT]
    broken = [row for row in gone if _is_broken(compared, row)]
    words = _bad_words(compared)
    limit = f"{100 * FEW:.0f} %"
    if not gone:
        return f"In no arm are {words} surely at {limit} or less on unseen prompts (by the whole 95 % interval)."
    text = f"{words.capitalize()} on unseen prompts are at {limit} or less, by the whole 95 % interval, in "
    text += f"{len(gone)} of {len(trained)} trained arms: {_listed(gone)}."
    if broken:
        text += f" But blank or gibberish replies are clearly more frequent than before in {_listed(broken)}."
    if lost:
        text += f" Fewer than {100 * KEPT:.0f} % of normal answers are left in {_listed(lost)}."
    good = [row for row in gone if row not in broken and row not in lost]
    billed = [(row.cost.flops, row) for row in good if row.cost and row.cost.flops and not row.cost.uncounted]
    if len(billed) > 1:
        flops, row = min(billed, key=lambda found: found[0])
        text += f" The one that took least compute is {_name(row)}: {wording.size(flops, 'FLOP')}."
    return text


def _most(rate: Rate) -> float:
    return 1.0 if rate.high is None else rate.high


def _is_broken(compared: Compared, row: Row) -> bool:
    """Whether blank or gibberish replies to unseen prompts are clearly more frequent than the original's."""
    before = next((other for other in compared.rows if other.arm == ORIGINAL), None)
    for key in ("blank_unseen", "gibberish_unseen"):
        rate, base = row.rates.get(key), before.rates.get(key) if before else None
        if rate and (rate.low or 0.0) > (base.high or 0.0 if base else FEW):
            return True
    return False


def _listed(rows: list[Row]) -> str:
    names = [_name(row) for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _name(row: Row) -> str:
    return inert_line(row.name, 60)


# ---- the table -------------------------------------------------------------------------------------------------------


def _line(compared: Compared, row: Row, place: int, keys: list[str]) -> Line:
    return Line(
        series=place % plots.SERIES,
        name=_name(row),
        cells=[_cell(compared, row, key) for key in keys],
        costs=_costs(compared, row),
    )


def _cell(compared: Compared, row: Row, key: str) -> html.Cell | None:
    rate = row.rates.get(key)
    if rate is None:
        return None
    bounds = "" if rate.low is None or rate.high is None else f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    counts = [] if _same_count(compared, key) else [f"n={rate.n}"]
    counts += [f"{rate.unknown} unknown"] if rate.unknown else []
    beside, alarm = "", False
    if key == "bad_unseen":
        shown = []
        for name, word in (("blank_unseen", "blank"), ("gibberish_unseen", "gibberish")):
            other = row.rates.get(name)
            shown.append(f"{word} {wording.number(other.value, 'fraction')}" if other else f"{word} not measured")
        beside = ", ".join(shown).replace(" %", "\u00a0%")
        alarm = _is_broken(compared, row)
    return html.Cell(
        value=wording.number(rate.value, "fraction"),
        interval=bounds,
        counted=" ".join(counts),
        difference="",
        change="unclear",
        arrow="",
        plot=html.plot(rate.value, rate.low, rate.high, 1.0),
        beside=beside,
        alarm=alarm,
    )


def _cost_titles(compared: Compared) -> list[str]:
    if not any(row.cost for row in compared.rows):
        return []
    matched = any(row.matched for row in compared.rows)
    return ["compute", "time", *([f"compute until {100 * compared.target:g} % bad"] if matched else [])]


def _costs(compared: Compared, row: Row) -> list[tuple[str, str]]:
    if not _cost_titles(compared):
        return []
    bill = row.cost
    base = "" if compared.relative_to is None else f" of {inert_line(compared.relative_to, 30)}'s"

    def share(value: float | None, low: float | None = None, high: float | None = None) -> str:
        spread = "" if low is None or high is None else f" [{100 * low:.3g}, {100 * high:.3g}]"
        return "" if value is None or not base else f"{100 * value:.3g} %{spread}{base}"

    of_base = share(bill.relative_flops, bill.relative_low, bill.relative_high) if bill else ""
    found = [(_flops(bill), of_base)]
    found.append((wording.seconds(bill.wall_seconds), share(bill.relative_seconds)) if bill else ("–", ""))
    if any(other.matched for other in compared.rows):
        matched = row.matched
        at_most = "≤ " if matched and matched.first_look else ""
        there = "–" if matched is None or matched.flops is None else at_most + wording.size(matched.flops, "FLOP")
        told = [matched.message, share(matched.relative_flops)] if matched else []
        found.append((there, inert_line("; ".join(filter(None, told)), 200)))
    return found


def _flops(bill: ArmCost | None) -> str:
    if bill is None or bill.flops is None:
        return "–"
    return ("≥ " if bill.uncounted else "") + wording.size(bill.flops, "FLOP")


# ---- the plots -------------------------------------------------------------------------------------------------------


def _base(compared: Compared) -> tuple[float, str, Callable[[float], str]]:
    """What FLOPs are divided by, the name of the axis, and how its ticks are put into words."""
    for row in compared.rows:
        if row.name == compared.relative_to and row.cost and row.cost.flops:
            name = plots.short(_name(row))
            return row.cost.flops, f"compute as a share of {name}'s (log scale)", lambda value: f"{100 * value:g} %"
    return 1.0, "compute (log scale)", lambda value: wording.size(value, "FLOP")


def _on_the_way(compared: Compared) -> Figure | None:
    """How each arm behaved while it was trained, against what it had cost by then."""
    base, axis, in_words = _base(compared)
    if _are_many(compared):
        return _each_on_the_way(compared)
    lines: list[plots.Line] = []
    ends: list[tuple[float, float, str]] = []
    told: list[str] = []
    for place, row in enumerate(compared.rows):
        drawn = _seeds(row, base)
        lines += [plots.Line(points, series=place, dots=True) for points in drawn]
        if drawn:  # the name stands where the target is reached first, else at the end
            run = _placed([point for point in by_seed(row.curve)[0] if reached(point, compared.target)], base)
            x, y = run[0] if run else drawn[0][-1]
            ends.append((x, y, plots.short(_name(row))))
            told.append(f"{_name(row)} ends at {100 * drawn[0][-1][1]:.1f} %")
    if not lines:
        return None
    chart = plots.Chart(
        name="on-the-way",
        title=f"{_bad_words(compared)} during training, against cost".capitalize(),
        description=f"{'; '.join(told)}.",
        x=axis,
        y="bad replies",
        lines=lines,
        labels=_staggered(ends),
        target=compared.target,
        percent_y=True,
        log_x=in_words,
        size=(10.6, 3.6),
    )
    caption = (
        "Bad replies to the validation prompts against what each arm had cost by then, its preparation included. "
        f"The dotted line is the target, {100 * compared.target:g} %; a name stands where its arm first reaches it."
    )
    return Figure(chart.title, plots.drawn(chart), caption, wide=True)


def _are_many(compared: Compared) -> bool:
    """Whether each arm gets a small plot of its own."""
    return sum(bool(row.curve) for row in compared.rows) > _MOST_TOGETHER


def _seeds(row: Row, base: float) -> list[list[tuple[float, float]]]:
    """The points of each seed of an arm, where there are some."""
    return [placed for points in by_seed(row.curve) if (placed := _placed(points, base))]


def _broken(run: list[Waypoint], base: float, limit: float) -> list[tuple[float, float]]:
    """The share of blank and gibberish replies on the way of one run; nothing where it never was above the limit."""
    points = [(point.flops / base, point.broken) for point in run if point.broken is not None and point.flops > 0]
    return points if any(share > limit for _, share in points) else []


def _each_on_the_way(compared: Compared) -> Figure:
    """The same for many arms: a small plot each, with the arm that costs are relative to in all of them."""
    base, axis, in_words = _base(compared)
    faint = [
        plots.Line(points) for row in compared.rows if row.name == compared.relative_to for points in _seeds(row, base)
    ]
    panels, told = [], []
    for row in compared.rows:
        if drawn := _seeds(row, base):
            own = row.name == compared.relative_to
            lines = [plots.Line(points) for points in drawn]
            shares = [_broken(run, base, compared.target) for run in by_seed(row.curve)]
            dotted = [plots.Line(points) for points in shares if points]
            panels.append(plots.Panel(plots.short(_name(row)), lines, [] if own else faint, dotted))
            told.append(f"{_name(row)} ends at {100 * drawn[0][-1][1]:.1f} %")
    height = 0.7 + 1.35 * -(-len(panels) // 4)
    chart = plots.Chart(
        name="on-the-way",
        title=f"{_bad_words(compared)} during training, against cost".capitalize(),
        description=f"{'; '.join(told)}.",
        x=axis,
        y="bad replies",
        lines=[],
        target=compared.target,
        percent_y=True,
        log_x=in_words,
        size=(10.6, height),
        panels=tuple(panels),
    )
    caption = (
        "Bad replies to the validation prompts against what each arm had cost by then, its preparation included; one line "
        f"a seed. The dotted line is the target, {100 * compared.target:g} %."
    )
    if any(panel.dotted for panel in panels):
        caption += " Orange and dotted: blank or gibberish replies, where a run had more of them than that."
    caption += f" Grey: {inert_line(compared.relative_to, 40)}." if faint and compared.relative_to else ""
    return Figure(chart.title, plots.drawn(chart), caption, wide=True)


def _staggered(points: list[tuple[float, float, str]]) -> tuple[plots.Label, ...]:
    """Names at points of a logarithmic axis; where they are close, each stands a line higher than the one before."""
    labels: list[plots.Label] = []
    turn, before = 0, 0.0
    for x, y, name in sorted(points):
        turn = (turn + 1) % 3 if before and math.log10(x / before) < _CLOSE else 0
        below = y > 0.8
        labels.append(plots.Label(x, y, name, 3, (-14 if below else 6) + 11 * turn * (-1 if below else 1)))
        before = x
    return tuple(labels)


def _placed(points: list[Waypoint], base: float) -> list[tuple[float, float]]:
    return [(point.flops / base, point.value) for point in points if point.value is not None and point.flops > 0]


def _in_the_end(compared: Compared) -> Figure | None:
    """The final rate of each arm against all that it cost; none of many arms, whose names would hide each other."""
    if _are_many(compared):
        return None
    base, axis, in_words = _base(compared)
    found = [
        (place, row, row.cost.flops / base, rate)
        for place, row in enumerate(compared.rows)
        if row.cost and row.cost.flops and (rate := row.rates.get("bad_unseen")) and rate.value is not None
    ]
    if not found:
        return None
    ends = [(x, rate.value or 0.0, plots.short(_name(row))) for _, row, x, rate in found]
    chart = plots.Chart(
        name="in-the-end",
        title=f"{_bad_words(compared)} on unseen prompts, against cost".capitalize(),
        description=f"{'; '.join(f'{_name(row)} at {_percent(rate)}' for _, row, _, rate in found)}.",
        x=axis,
        y="bad replies, unseen",
        lines=[_point(place, x, rate) for place, _, x, rate in found],
        labels=_staggered(ends),
        percent_y=True,
        log_x=in_words,
        size=(5.2, 3.4),
    )
    caption = "The finished arms: to the left is cheaper, down is better. Whiskers are 95 % intervals."
    return Figure(chart.title, plots.drawn(chart), caption)


def _kept(compared: Compared) -> Figure | None:
    """The final rate of each arm against the normal answers that it kept."""
    found = [
        (place, row, kept, rate)
        for place, row in enumerate(compared.rows)
        if (rate := row.rates.get("bad_unseen"))
        and rate.value is not None
        and (kept := row.rates.get("kept_normal"))
        and kept.value is not None
    ]
    if not found:
        return None
    title = _title(compared, "kept_normal").partition(",")[0]
    chart = plots.Chart(
        name="kept",
        title=f"{_bad_words(compared)} on unseen prompts, against normal prompts {title}".capitalize(),
        description="; ".join(f"{_name(row)} at {_percent(rate)} and {_percent(kept)}" for _, row, kept, rate in found),
        x=f"normal prompts, {title}",
        y="bad replies, unseen",
        lines=[_point(place, kept.value or 0.0, rate) for place, _, kept, rate in found],
        labels=_shared_labels([(kept.value or 0.0, rate.value or 0.0, _name(row)) for _, row, kept, rate in found]),
        percent_y=True,
        percent_x=True,
        size=(5.2, 3.4),
    )
    caption = "Down and to the right is better. Whiskers are 95 % intervals of the bad replies; arms may coincide."
    return Figure(chart.title, plots.drawn(chart), caption)


def _point(place: int, x: float, rate: Rate) -> plots.Line:
    value = rate.value or 0.0
    low, high = (value if bound is None else bound for bound in (rate.low, rate.high))
    return plots.Line([(x, value)], series=place, dots=True, low=[low], high=[high])


def _percent(rate: Rate) -> str:
    return wording.number(rate.value, "fraction")


def _shared_labels(points: list[tuple[float, float, str]]) -> tuple[plots.Label, ...]:
    """One label for points that coincide: the names of the first three, and how many more."""
    groups: list[list[tuple[float, float, str]]] = []
    for point in points:
        near = [g for g in groups if abs(g[0][0] - point[0]) < _NEAR and abs(g[0][1] - point[1]) < _NEAR]
        if near:
            near[0].append(point)
        else:
            groups.append([point])
    labels = []
    for group in groups:
        names = [plots.short(name) for _, _, name in group]
        text = ", ".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "")
        right = group[0][0] > 0.5
        labels.append(plots.Label(*group[0][:2], text, -9 if right else 9, 5, "right" if right else "left"))
    return tuple(labels)
