"""What every page is made of: one file, a content security policy by hash, text made inert, metrics with whiskers."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unteach.report import wording
from unteach.results.measurement import Measurement
from unteach.results.report import Report
from unteach.text.escape import inert, inert_line

PLOT_WIDTH = 120  # user units of the little drawing beside a metric; the style sheet scales it


@dataclass(frozen=True)
class Plot:
    """A value with its interval on an axis from 0 to `PLOT_WIDTH`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One metric of one arm, ready to show; `change` names a class of the style sheet.

    `beside` is what a rate that looks safe must be read with, and `alarm` says that this is high.
    """

    value: str
    interval: str
    counted: str
    difference: str
    change: str
    arrow: str
    plot: Plot | None
    beside: str = ""
    alarm: bool = False


def whole(template: str, script: str = "", **content: Any) -> str:
    """Render a page; its style sheet and its script are allowed by their hashes, and nothing else is."""
    style = _source("page.css")
    code = _source(script) if script else ""
    return (
        templates()
        .get_template(template)
        .render(
            style=Markup(style),
            style_hash=_hash(style),
            script=Markup(code),
            script_hash=_hash(code),
            plot_width=PLOT_WIDTH,
            **content,
        )
    )


@cache
def templates() -> Environment:
    """The templates, in which every text is escaped unless a filter says otherwise."""
    made = Environment(
        loader=PackageLoader("unteach.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        inert=lambda value: inert(str(value)),
        line=lambda value: inert_line(str(value), 300),
        split=lambda name: wording.label(name, wording.SPLITS),
        shortsplit=lambda name: wording.label(name, wording.SHORT_SPLITS),
        seconds=wording.seconds,
        size=wording.size,
    )
    return made


def axis_end(metrics: list[Measurement | None]) -> float:
    """Where the axis of a row ends: 1 for fractions, else the largest bound of any arm; 0 means no plot."""
    shown = [metric for metric in metrics if metric is not None and metric.value is not None]
    if not shown:
        return 0.0
    if shown[0].unit == "fraction":
        return 1.0
    bounds = [bound for metric in shown for bound in (metric.value, metric.low, metric.high)]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if min(known) >= 0 else 0.0


def cell(report: Report, metric: Measurement, end: float) -> Cell:
    """Put one metric into words, held against the original's."""
    before = report.measured(metric.name, metric.split, "original")
    return Cell(
        value=wording.number(metric.value, metric.unit),
        interval=wording.interval(metric),
        counted=wording.counted(metric),
        difference=wording.difference(metric),
        change=wording.change(before, metric),
        arrow=wording.arrow(before, metric),
        plot=plot(metric.value, metric.low, metric.high, end),
    )


def plot(value: float | None, low: float | None, high: float | None, end: float) -> Plot | None:
    """Place a value and its interval on an axis that ends at `end`; None where there is nothing to draw."""
    if value is None or end <= 0:
        return None

    def at(number: float) -> float:
        return round(min(max(number / end, 0.0), 1.0) * PLOT_WIDTH, 2)

    return Plot(at(value), at(value if low is None else low), at(value if high is None else high))


@cache
def _source(name: str) -> str:
    source, _, _ = PackageLoader("unteach.report").get_source(templates(), name)
    return source.strip()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
