"""The plots of a comparison: bad replies against cost, during training and at its end, and against what is kept."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from unteach.comparison.compare import ComparedArm, Comparison, Rate
from unteach.comparison.matched import by_seed, reached
from unteach.report import plots, wording
from unteach.report.comparison_table import arm_name
from unteach.results.report import Waypoint
from unteach.text.escape import inert_line

_CLOSE = 0.2  # powers of ten; names nearer than this would overlap
_MOST_TOGETHER = 6  # more arms than these get a plot each
_NEAR = 0.06  # of an axis; points nearer than this share a label

Place = tuple[float, float, str]
"""A point of a plot, and the name of its arm."""


def figures(comparison: Comparison, bad: str, kept: str) -> list[plots.Figure]:
    """Return the plots that there are metrics for; `bad` and `kept` say what the rates count."""
    together = sum(bool(arm.curve) for arm in comparison.arms) <= _MOST_TOGETHER
    found = [
        _during_training(comparison, bad, together),
        _in_the_end(comparison, bad) if together else None,  # the names of many arms would hide each other
        _against_kept(comparison, bad, kept),
    ]
    return [figure for figure in found if figure]


def _during_training(comparison: Comparison, bad: str, together: bool) -> plots.Figure | None:
    """Draw how often each arm was bad while it was trained, against what it had cost by then."""
    base, axis, in_words = _base(comparison)
    arms = [(place, arm, runs) for place, arm in enumerate(comparison.arms) if (runs := _seeds(arm, base))]
    if not arms:
        return None
    ends = [(arm, runs[0][-1][1]) for _, arm, runs in arms]
    chart = plots.Chart(
        name="on-the-way",
        title=f"{bad} during training, against cost".capitalize(),
        description="; ".join(f"{arm_name(arm.name)} ends at {wording.number(share)}" for arm, share in ends) + ".",
        x=axis,
        y="bad replies",
        lines=[],
        target=comparison.target,
        percent_y=True,
        log_x=in_words,
        size=(10.6, 3.6),
    )
    caption = "Bad replies to the validation prompts against what each arm had cost by then, its preparation included"
    target = f"The dotted line is the target, {100 * comparison.target:g} %"
    if together:
        lines = [plots.Line(points, series=place, dots=True) for place, _, runs in arms for points in runs]
        names = [_named_place(comparison, arm, runs[0], base) for _, arm, runs in arms]
        caption += f". {target}; a name stands where its arm first reaches it."
        return plots.draw(replace(chart, lines=lines, labels=_staggered(names)), caption, wide=True)
    faint = [plots.Line(points) for _, arm, runs in arms if arm.name == comparison.relative_to for points in runs]
    panels = tuple(
        plots.Panel(
            title=plots.short(arm_name(arm.name)),
            lines=[plots.Line(points) for points in runs],
            faint=[] if arm.name == comparison.relative_to else faint,
            dotted=_broken(arm, base, comparison.target),
        )
        for _, arm, runs in arms
    )
    caption += f"; one line a seed. {target}."
    if any(panel.dotted for panel in panels):
        caption += " Orange and dotted: blank or gibberish replies, where a run had more of them than that."
    caption += f" Grey: {inert_line(comparison.relative_to, 40)}." if faint and comparison.relative_to else ""
    height = 0.7 + 1.35 * math.ceil(len(panels) / chart.columns)
    return plots.draw(replace(chart, panels=panels, size=(10.6, height)), caption, wide=True)


def _in_the_end(comparison: Comparison, bad: str) -> plots.Figure | None:
    """Draw the final rate of each arm against all that it cost."""
    base, axis, in_words = _base(comparison)
    found = [
        (place, arm, arm.cost.flops / base, rate)
        for place, arm in enumerate(comparison.arms)
        if arm.cost and arm.cost.flops and (rate := arm.rates.get("bad_unseen")) and rate.value is not None
    ]
    if not found:
        return None
    chart = plots.Chart(
        name="in-the-end",
        title=f"{bad} on unseen prompts, against cost".capitalize(),
        description="; ".join(f"{arm_name(arm.name)} at {wording.number(rate.value)}" for _, arm, _, rate in found)
        + ".",
        x=axis,
        y="bad replies, unseen",
        lines=[_point(place, x, rate) for place, _, x, rate in found],
        labels=_staggered([(x, rate.value or 0.0, plots.short(arm_name(arm.name))) for _, arm, x, rate in found]),
        percent_y=True,
        log_x=in_words,
        size=(5.2, 3.4),
    )
    return plots.draw(chart, "The finished arms: to the left is cheaper, down is better. Whiskers are 95 % intervals.")


def _against_kept(comparison: Comparison, bad: str, kept_words: str) -> plots.Figure | None:
    """Draw the final rate of each arm against the normal answers that it kept."""
    found = [
        (place, arm_name(arm.name), kept, rate)
        for place, arm in enumerate(comparison.arms)
        if (rate := arm.rates.get("bad_unseen"))
        and rate.value is not None
        and (kept := arm.rates.get("kept_normal"))
        and kept.value is not None
    ]
    if not found:
        return None
    chart = plots.Chart(
        name="kept",
        title=f"{bad} on unseen prompts, against normal prompts {kept_words}".capitalize(),
        description="; ".join(
            f"{name} at {wording.number(rate.value)} and {wording.number(kept.value)}" for _, name, kept, rate in found
        ),
        x=f"normal prompts, {kept_words}",
        y="bad replies, unseen",
        lines=[_point(place, kept.value or 0.0, rate) for place, _, kept, rate in found],
        labels=_shared_labels([(kept.value or 0.0, rate.value or 0.0, name) for _, name, kept, rate in found]),
        percent_y=True,
        percent_x=True,
        size=(5.2, 3.4),
    )
    caption = "Down and to the right is better. Whiskers are 95 % intervals of the bad replies; arms may coincide."
    return plots.draw(chart, caption)


# ---- points and names ------------------------------------------------------------------------------------------------


def _base(comparison: Comparison) -> tuple[float, str, Callable[[float], str]]:
    """Return what FLOPs are divided by, the name of the axis, and how its ticks are put into words."""
    for arm in comparison.arms:
        if arm.name == comparison.relative_to and arm.cost and arm.cost.flops:
            name = plots.short(arm_name(arm.name))
            return arm.cost.flops, f"compute as a share of {name}'s (log scale)", lambda value: f"{100 * value:g} %"
    return 1.0, "compute (log scale)", lambda value: wording.size(value, "FLOP")


def _seeds(arm: ComparedArm, base: float) -> list[list[tuple[float, float]]]:
    """Return the points of each seed of an arm that has some."""
    return [points for run in by_seed(arm.curve) if (points := _points(run, base))]


def _points(run: Sequence[Waypoint], base: float) -> list[tuple[float, float]]:
    return [(point.flops / base, point.value) for point in run if point.value is not None and point.flops > 0]


def _broken(arm: ComparedArm, base: float, limit: float) -> list[plots.Line]:
    """Return the share of blank and gibberish replies of each run in which it ever was above the limit."""
    lines = []
    for run in by_seed(arm.curve):
        points = [(point.flops / base, point.broken) for point in run if point.broken is not None and point.flops > 0]
        if any(share > limit for _, share in points):
            lines.append(plots.Line(points))
    return lines


def _named_place(comparison: Comparison, arm: ComparedArm, run: list[tuple[float, float]], base: float) -> Place:
    """Return where an arm's name stands: where its first seed first reaches the target, else at the seed's end."""
    there = _points([point for point in by_seed(arm.curve)[0] if reached(point, comparison.target)], base)
    return *(there[0] if there else run[-1]), plots.short(arm_name(arm.name))


def _staggered(points: list[Place]) -> tuple[plots.Label, ...]:
    """Name points of a logarithmic axis; where names are close, each stands a line higher than the one before."""
    labels: list[plots.Label] = []
    turn, before = 0, 0.0
    for x, y, name in sorted(points):
        turn = (turn + 1) % 3 if before and math.log10(x / before) < _CLOSE else 0
        below = y > 0.8
        labels.append(plots.Label(x, y, name, 3, (-14 if below else 6) + 11 * turn * (-1 if below else 1)))
        before = x
    return tuple(labels)


def _point(place: int, x: float, rate: Rate) -> plots.Line:
    value = rate.value or 0.0
    low, high = (value if bound is None else bound for bound in (rate.low, rate.high))
    return plots.Line([(x, value)], series=place, dots=True, low=[low], high=[high])


def _shared_labels(points: list[Place]) -> tuple[plots.Label, ...]:
    """Return one label for points that coincide: the names of the first three, and how many more there are."""
    groups: list[list[Place]] = []
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
