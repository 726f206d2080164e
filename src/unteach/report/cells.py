"""Metrics side by side: one table of cells, which the terminal, the model card and the page each draw their way."""

from collections.abc import Sequence
from dataclasses import dataclass

from unteach.report import wording
from unteach.results.arms import ORIGINAL
from unteach.results.measurement import Measurement
from unteach.results.report import Report

WHISKER_WIDTH = 120
"""Width of the small drawing beside a metric, in user units; the style sheet scales it."""


@dataclass(frozen=True)
class Whisker:
    """A value and its interval as places on an axis from 0 to `WHISKER_WIDTH`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One metric of one arm, ready to show; `change` is one of `wording.Change` and a class of the style sheet.

    `beside` is what a rate that looks safe must be read with, and `alarm` says that this is high.
    """

    value: str
    interval: str
    counted: str
    whisker: Whisker | None
    difference: str = ""
    change: str = "unclear"
    arrow: str = ""
    beside: str = ""
    alarm: bool = False

    @property
    def detail(self) -> str:
        """The interval and the number of cases."""
        return f"{self.interval} {self.counted}".strip()


CellRow = tuple[str, list[Cell | None]]
"""A metric's name in words, and a cell for each arm, None where it was not measured."""


def metric_rows(report: Report, arms: Sequence[str]) -> list[tuple[str, list[CellRow]]]:
    """Return the title of every split that has metrics, and a row for each metric."""
    return [
        (
            wording.label(split, wording.SPLITS),
            [
                (wording.metric_label(report, name), cells_of(report, name, split, arms))
                for name in wording.metric_names(report, split)
            ],
        )
        for split in wording.splits(report)
    ]


def cells_of(report: Report, name: str, split: str, arms: Sequence[str]) -> list[Cell | None]:
    """Return a metric's cell for each arm; all of them share one axis."""
    metrics = [report.measured(name, split, arm) for arm in arms]
    end = _axis_end([metric for metric in metrics if metric is not None and metric.value is not None])
    return [None if metric is None else _cell(report, metric, end) for metric in metrics]


def _cell(report: Report, metric: Measurement, end: float) -> Cell:
    before = report.measured(metric.name, metric.split, ORIGINAL)
    return Cell(
        value=wording.number(metric.value, metric.unit),
        interval=wording.interval(metric),
        counted=wording.counted(metric),
        difference=wording.difference(metric),
        change=wording.change(before, metric),
        arrow=wording.arrow(before, metric),
        whisker=whisker(metric, end),
    )


def _axis_end(metrics: Sequence[Measurement]) -> float:
    """Return where the axis of a row ends: 1 for fractions, else the largest bound of any arm; 0 for no axis."""
    if not metrics:
        return 0.0
    if metrics[0].unit == "fraction":
        return 1.0
    bounds = [bound for metric in metrics for bound in (metric.value, metric.low, metric.high) if bound is not None]
    return max(bounds) if min(bounds) >= 0 else 0.0


def whisker(found: wording.Estimated, end: float = 1.0) -> Whisker | None:
    """Place a value and its interval on an axis that ends at `end`; None where there is nothing to draw."""
    if found.value is None or end <= 0:
        return None
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return Whisker(*(round(min(max(x / end, 0.0), 1.0) * WHISKER_WIDTH, 2) for x in (found.value, low, high)))
