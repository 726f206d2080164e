"""The page: report.html, one file without scripts that needs no network."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unteach.escape import inert, inert_line
from unteach.measurement import Measurement
from unteach.report import opinions, study, wording
from unteach.report.schema import Report, Sample, write_whole

FILE_NAME = "report.html"
_REPLY_CHARACTERS = 4000
_PLOT_WIDTH = 120  # user units of the little drawing beside a figure; the style sheet scales it


@dataclass(frozen=True)
class Plot:
    """A value with its interval on an axis from 0 to `_PLOT_WIDTH`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One figure of one arm, ready to show; `change` names a class of the style sheet."""

    value: str
    interval: str
    counted: str
    difference: str
    change: str
    arrow: str
    plot: Plot | None


@dataclass(frozen=True)
class Reply:
    """One arm's reply to a sample."""

    arm: str
    text: str
    verdict: str


def write_page(report: Report, directory: str | Path) -> Path:
    """Write report.html into the run directory; raises OutputError where it cannot be written."""
    return write_whole(Path(directory) / FILE_NAME, page(report))


def page(report: Report) -> str:
    """The report as one HTML file; everything a model or a data set wrote is escaped and made inert."""
    arms = [arm for arm in wording.arms(report) if any(figure.arm == arm for figure in report.measurements)]
    style = _style()
    grids = study.grids(report) if study.is_study(report) else []
    return _templates().get_template("page.html.jinja").render(
        headline=study.headline(report),
        ended=wording.how_it_ended(report),
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        report=report,
        arms=[wording.arm_label(report, arm) for arm in arms],
        grids=grids,
        sections=[] if grids else [(split, _rows(report, split, arms)) for split in wording.splits(report)],
        opinions=opinions,
        samples=[(sample, _replies(report, sample)) for sample in wording.handful(report, len(report.samples))],
        plot_width=_PLOT_WIDTH,
    )


def _rows(report: Report, split: str, arms: list[str]) -> list[tuple[str, list[Cell | None]]]:
    rows = []
    for name in wording.figure_names(report, split):
        figures = [report.measured(name, split, arm) for arm in arms]
        before = report.measured(name, split, "original")
        top = _axis_end(figures)
        cells = [None if figure is None else _cell(figure, before, top) for figure in figures]
        rows.append((wording.figure_label(report, name), cells))
    return rows


def _axis_end(figures: list[Measurement | None]) -> float:
    """Where the axis of a row ends: 1 for fractions, else the largest bound of any arm; 0 means no plot."""
    shown = [figure for figure in figures if figure is not None and figure.value is not None]
    if not shown:
        return 0.0
    if shown[0].unit == "fraction":
        return 1.0
    bounds = [bound for figure in shown for bound in (figure.value, figure.low, figure.high)]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if min(known) >= 0 else 0.0


def _cell(figure: Measurement, before: Measurement | None, axis_end: float) -> Cell:
    return Cell(
        value=wording.number(figure.value, figure.unit),
        interval=wording.interval(figure),
        counted=wording.counted(figure),
        difference=wording.difference(figure),
        change=wording.change(before, figure),
        arrow=wording.arrow(before, figure),
        plot=_plot(figure, axis_end),
    )


def _plot(figure: Measurement, axis_end: float) -> Plot | None:
    if figure.value is None or axis_end <= 0:
        return None

    def at(value: float) -> float:
        return round(min(max(value / axis_end, 0.0), 1.0) * _PLOT_WIDTH, 2)

    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return Plot(at(figure.value), at(low), at(high))


def _replies(report: Report, sample: Sample) -> list[Reply]:
    return [
        Reply(wording.arm_label(report, arm), sample.replies[arm], sample.verdicts.get(arm, ""))
        for arm in wording.in_order(sample.replies, wording.ARMS)
    ]


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("unteach.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        inert=lambda value: inert(str(value), _REPLY_CHARACTERS),
        line=lambda value: inert_line(str(value), 300),
        split=lambda name: wording.label(name, wording.SPLITS),
        seconds=wording.seconds,
        size=wording.size,
    )
    return templates


@cache
def _style() -> str:
    source, _, _ = PackageLoader("unteach.report").get_source(_templates(), "page.css")
    return source.strip()
