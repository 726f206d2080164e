"""Plots as SVG: drawn by matplotlib and coloured by the style sheet, so that they suit light, dark and paper.

matplotlib writes `style` attributes, which the pages' content security policy forbids. Each declaration becomes a
presentation attribute or, where it is a colour, a class. Ids get the plot's name, since a page holds many plots.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

SERIES = 8  # number of colours and shapes; the ninth arm has the first again
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Stand-ins for matplotlib to draw with, which become classes: all different, and none a colour of matplotlib's own.
_ROLES = {
    "ink": "#010101",
    "soft": "#010102",
    "grid": "#010103",
    "ground": "#010104",
    "target": "#010105",
    "faint": "#010106",
}
_ROLES |= {f"s{number}": f"#0101{number + 16:02x}" for number in range(SERIES)}
_OF_COLOUR = {colour: role for role, colour in _ROLES.items()}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unteach",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_LABEL = 18  # characters of an arm's name inside a plot; the table beside it has all of it


@dataclass(frozen=True)
class Line:
    """A line through points; `dots` marks the points, for metrics that were taken now and then.

    `hollow` dots do not hide the dots of another line behind them.
    """

    points: list[tuple[float, float]]
    series: int = 0
    dots: bool = False
    hollow: bool = False
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class VerticalLine:
    """An upright line at a place of the x axis; its label is to the left of a dashed line, else to the right."""

    x: float
    label: str
    dashed: bool = False


@dataclass(frozen=True)
class Label:
    """Words beside a place of a plot, at a distance of `dx` and `dy` points."""

    x: float
    y: float
    text: str
    dx: float = 6
    dy: float = 4
    align: str = "left"


@dataclass(frozen=True)
class Panel:
    """One of several small plots with the same axes: its title, its lines, and faint ones to compare them with.

    `dotted` lines are of another quantity on the same axes.
    """

    title: str
    lines: list[Line]
    faint: list[Line]
    dotted: list[Line]


@dataclass(frozen=True)
class Chart:
    """One plot: what it shows in words (`title`, `description`), its axes, and what is in it.

    `log_x` makes the x axis logarithmic and puts its ticks into words. With `panels`, in rows of `columns`, there is a
    small plot for each in place of the lines.
    """

    name: str
    title: str
    description: str
    x: str
    y: str
    lines: list[Line]
    marks: tuple[VerticalLine, ...] = ()
    labels: tuple[Label, ...] = ()
    target: float | None = None
    percent_y: bool = False
    percent_x: bool = False
    x_end: float | None = None
    log_x: Callable[[float], str] | None = None
    size: tuple[float, float] = (4.6, 2.3)
    panels: tuple[Panel, ...] = ()
    columns: int = 4


@dataclass(frozen=True)
class Figure:
    """A drawn plot with its heading, and what it says in words."""

    title: str
    svg: Markup
    caption: str
    wide: bool = False


def draw(chart: Chart, caption: str, wide: bool = False) -> Figure:
    """Draw a chart as an `<svg>` with a title and a description for readers who do not see it."""
    import matplotlib.figure

    with matplotlib.rc_context(_SETTINGS):
        figure = matplotlib.figure.Figure(figsize=chart.size, layout="constrained")
        if chart.panels:
            _draw_panels(figure, chart)
        else:
            _draw_all(figure.subplots(), chart)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return Figure(chart.title, _inline(buffer.getvalue(), chart), caption, wide)


def _draw_panels(figure: Any, chart: Chart) -> None:
    """Draw the small plots in rows; all have the axes of the first."""
    rows = -(-len(chart.panels) // chart.columns)
    grid = figure.subplots(rows, chart.columns, sharex=True, sharey=True, squeeze=False)
    places = [axes for row in grid for axes in row]
    for axes, panel in zip(places, chart.panels, strict=False):
        _dress(axes, replace(chart, x="", y="", lines=[*panel.faint, *panel.lines]))
        axes.set_title(panel.title, fontsize=9, color=_ROLES["ink"], loc="left")
        for line in panel.faint:
            axes.plot(*zip(*line.points, strict=True), color=_ROLES["faint"], linewidth=1.2)
        for line in panel.lines:
            axes.plot(*zip(*line.points, strict=True), color=_ROLES["s0"], linewidth=1.2, marker="o", markersize=2.6)
        for line in panel.dotted:
            axes.plot(*zip(*line.points, strict=True), color=_ROLES["s1"], linewidth=1.2, linestyle=(0, (1, 1)))
    for place, axes in enumerate(places):
        axes.set_visible(place < len(chart.panels))
        axes.tick_params(labelbottom=place + chart.columns >= len(chart.panels))
    figure.supxlabel(chart.x, fontsize=9, color=_ROLES["soft"])
    figure.supylabel(chart.y, fontsize=9, color=_ROLES["soft"])


def _draw_all(axes: Any, chart: Chart) -> None:
    """Draw all lines and labels into one plot."""
    _dress(axes, chart)
    for line in reversed(chart.lines):  # the first on top
        _draw_line(axes, line)
    for label in chart.labels:
        axes.annotate(
            label.text,
            (label.x, label.y),
            (label.dx, label.dy),
            textcoords="offset points",
            fontsize=9,
            ha=label.align,
            color=_ROLES["ink"],
        )
    for mark in chart.marks:
        axes.axvline(mark.x, color=_ROLES["ink"], linewidth=0.9, linestyle=(0, (4, 3)) if mark.dashed else "-")
        axes.annotate(
            mark.label,
            (mark.x, 1),
            (0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if mark.dashed else "left",
            va="bottom",
            fontsize=8,
            color=_ROLES["ink"],
        )


def short(name: str) -> str:
    """Return an arm's name for the inside of a plot: cut, and in letters that every font has."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in name)
    return plain if len(plain) <= _LABEL else f"{plain[: _LABEL - 2]}.."


def _dress(axes: Any, chart: Chart) -> None:
    """Set axes, ticks and grid, in the colours of the page."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

    axes.set_xlabel(chart.x, color=_ROLES["soft"])
    axes.set_ylabel(chart.y, color=_ROLES["soft"])
    axes.grid(color=_ROLES["grid"], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_ROLES["soft"], which="both")
    for spine in axes.spines.values():
        spine.set_color(_ROLES["soft"])
    if chart.log_x:
        axes.set_xscale("log")
        in_words = chart.log_x
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if chart.panels else (1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_words(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=not chart.percent_x))
    if chart.x_end:
        axes.set_xlim(0, chart.x_end)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if not chart.percent_y:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    if chart.percent_y:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    elif any(line.points for line in chart.lines):
        top = max(y for line in chart.lines for _, y in line.points)
        bottom = min(y for line in chart.lines for _, y in line.points)
        axes.set_ylim(min(0.0, bottom), (top * 1.06) or 1.0)
    if chart.percent_x:
        axes.set_xlim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    if chart.target is not None:
        axes.axhline(chart.target, color=_ROLES["target"], linewidth=0.9, linestyle=(0, (2, 3)))


def _draw_line(axes: Any, line: Line) -> None:
    colour = _ROLES[f"s{line.series % SERIES}"]
    marker = _MARKERS[line.series % SERIES]
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    if line.low is not None and line.high is not None:
        reach = [
            [y - low for y, low in zip(ys, line.low, strict=True)],
            [high - y for y, high in zip(ys, line.high, strict=True)],
        ]
        reach = [[max(0.0, size) for size in side] for side in reach]
        axes.errorbar(xs, ys, yerr=reach, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2.5, capthick=1.1)
    shape = {"marker": marker, "markersize": 6, "markeredgecolor": _ROLES["ground"], "markeredgewidth": 0.7}
    if line.hollow:
        shape |= {"markersize": 7, "markerfacecolor": _ROLES["ground"], "markeredgecolor": colour}
    axes.plot(xs, ys, color=colour, linewidth=0.9 if line.dots else 1.5, **(shape if line.dots else {}))


# ---- from matplotlib's SVG to ours -----------------------------------------------------------------------------------


def _inline(source: bytes, chart: Chart) -> Markup:
    """Turn matplotlib's file into an element of a page."""
    root = ElementTree.fromstring(source)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    used = set(re.findall(rb"#(\w+)", source))
    for element in root.iter():
        if element.get("id", "").encode() not in used:
            element.attrib.pop("id", None)
        if not (element.text or "").strip():
            element.text = None
        element.tail = None
        _clean(element, chart.name)
    box = root.get("viewBox", "0 0 100 100")
    root.attrib.clear()
    root.attrib |= {
        "viewBox": box,
        "class": "chart",
        "role": "img",
        "stroke-linejoin": "round",
        "aria-labelledby": f"{chart.name}-title {chart.name}-desc",
    }
    for place, (tag, text) in enumerate((("title", chart.title), ("desc", chart.description))):
        element = ElementTree.Element(tag, {"id": f"{chart.name}-{tag}"})
        element.text = text
        root.insert(place, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element, name: str) -> None:
    """Turn style declarations into attributes and classes, and prefix ids with the plot's name."""
    classes = []
    for declaration in element.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":  # "9px 'DejaVu Sans', …": the style sheet has the family
            element.set("font-size", value.split()[0])
        elif key in ("fill", "stroke") and value in _OF_COLOUR:
            classes.append(f"{key}-{_OF_COLOUR[value]}")
        elif key == "font-size" or key and not key.startswith("font-") and key != "white-space":
            element.set(key, value)
    if classes:
        element.set("class", " ".join(classes))
    for key in list(element.attrib):
        value = element.attrib[key]
        plain = key.rpartition("}")[2]
        if plain == "id":
            value = f"{name}-{value}"
        elif plain == "href":
            value = f"#{name}-{value.removeprefix('#')}"
        elif value.startswith("url(#"):
            value = f"url(#{name}-{value.removeprefix('url(#')}"
        elif plain in ("d", "x", "y", "transform"):
            value = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value).strip()
        del element.attrib[key]
        element.attrib[plain] = value
