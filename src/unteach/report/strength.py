"""The frontier of a run: what each scale of its update does, as a plot and a table."""

from dataclasses import dataclass

from unteach.report import plots, wording
from unteach.report.grid import Grid
from unteach.results.strength import Strength, StrengthPoint
from unteach.stats import wilson
from unteach.text.escape import inert_line


@dataclass(frozen=True)
class Frontier:
    """The part of a page on the strength of an update: what was chosen and why, the plot, and the values."""

    says: str
    drawn: list[plots.Figure]
    table: Grid


def frontier(strength: Strength | None) -> Frontier | None:
    """Draw what was found at every scale; None where no scale was searched for."""
    if strength is None or len(strength.points) < 2:
        return None
    return Frontier(inert_line(f"{strength.message}.", 900), [_draw(strength)], _table(strength.points))


def _draw(strength: Strength) -> plots.Figure:
    points = strength.points
    lines = {"bad replies to harmful prompts": [(point.scale, point.bad_share) for point in points]}
    if any(point.lookalikes for point in points):
        lines["harmless prompts declined"] = [(point.scale, point.declined_share) for point in points]
    lines["blank or gibberish"] = [(point.scale, point.broken) for point in points]
    told = [
        f"{what}: {wording.number(line[0][1])} at scale 0, {wording.number(line[-1][1])} at {line[-1][0]:g}"
        for what, line in lines.items()
    ]
    marks = ("dots", "squares", "triangles")
    shown = ", ".join(f"{mark}: {what}" for mark, what in zip(marks, lines, strict=False))
    chart = plots.Chart(
        name="strength",
        title="The update at other strengths",
        description=f"{'; '.join(told)}; chosen: {strength.scale:g}.",
        x="scale of the update",
        y="share of replies",
        lines=[
            plots.Line(line, series=number, dots=True, hollow=number > 0) for number, line in enumerate(lines.values())
        ],
        marks=(plots.VerticalLine(strength.scale, "chosen"),),
        percent_y=True,
        x_end=points[-1].scale,
    )
    return plots.draw(chart, f"Validation prompts. {shown[0].upper()}{shown[1:]}.")


def _table(points: list[StrengthPoint]) -> Grid:
    """Return the values of the plot with their 95 % intervals, and the KL."""
    titles = ["scale", "bad", "interval", "verdicts", "declined", "interval", "asked", "broken", "KL, nats per token"]
    rows = []
    for point in points:
        row = [f"{point.scale:g}", *_share(point.bad, point.judged), f"{point.judged} of {point.asked}"]
        row += [*_share(point.declined, point.lookalikes), str(point.lookalikes)]
        rows.append([*row, wording.number(point.broken), wording.number(point.kl, "nats")])
    return Grid(titles, rows, tuple(range(len(titles))))


def _share(count: int, n: int) -> tuple[str, str]:
    value, low, high = wilson(count, n)
    if value is None or low is None or high is None:
        return "–", ""
    return wording.number(value), f"[{wording.number(low, with_sign=False)}, {wording.number(high, with_sign=False)}]"
