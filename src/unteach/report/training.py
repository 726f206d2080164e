"""How training went: the curves of log.jsonl, and the step at which training ended."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unteach.report import plots, wording
from unteach.results.report import Report
from unteach.text.bounded import read_yaml
from unteach.text.escape import inert_line

LOG = "log.jsonl"
_LARGEST = 64_000_000  # bytes; a longer log is no log of ours
_POINTS = 300  # of one curve; more would not be seen
_STAGES = 6


@dataclass(frozen=True)
class Stage:
    """The plots of one stage of training; `name` is empty where a run has one stage only."""

    name: str
    figures: list[plots.Figure]


@dataclass(frozen=True)
class _Plot:
    """What one plot shows: metrics of the log by their keys, over the metric `x`, and a sentence that explains them."""

    name: str
    title: str
    y: str
    keys: tuple[str, ...]
    says: str
    x: str = "step"


_PLOTS = (
    _Plot(
        "forget",
        "Loss on the bad replies",
        "nats per token",
        ("forget_ce",),
        "Cross-entropy of the bad replies in each batch: it rises as they become unlikely.",
    ),
    _Plot(
        "kl",
        "KL to the original, normal rows",
        "nats per token",
        ("kl", "validation_kl"),
        "How far the model has drifted on normal rows. Line: rows it trains on; squares: validation rows.",
    ),
    _Plot(
        "validation",
        "Bad replies on validation prompts",
        "share of replies",
        ("validation_bad_rate", "validation_broken_rate"),
        "Replies to half A of the validation prompts. Dots: bad; squares: broken (blank or gibberish).",
    ),
    _Plot(
        "scale",
        "Along the direction",
        "nats per token",
        ("moved_kl", "moved_ce"),
        "What was seen at each scale of the move: the KL on validation normals, and the bad replies' cross-entropy.",
        x="scale",
    ),
    _Plot("rate", "Learning rate", "", ("learning_rate",), "It rises first and falls at the end."),
    _Plot("reward", "Reward", "", ("reward",), "Mean reward of the sampled replies of each step."),
    _Plot("margin", "Reward margin", "", ("rewards/margins",), "How much more the good reply is preferred."),
)
_PLAIN_LOSS = _Plot("loss", "Loss", "", ("loss",), "The training loss of each step.")
_NAMES = {"validation_bad_rate": "bad", "validation_broken_rate": "broken", "validation_kl": "validation"}
_NAMES |= {"moved_kl": "KL", "moved_ce": "bad replies"}


def draw_stages(report: Report, directory: Path) -> list[Stage]:
    """Read the log of a run directory and draw it; empty where there is none. Lines without metrics are skipped."""
    found = list(_by_stage(directory / LOG).items())[:_STAGES]
    target = read_target_rate(directory)
    marks = _marks(report) if len(found) == 1 else ()
    return [
        Stage(name, figures)
        for number, (name, lines) in enumerate(found)
        if (figures := _figures(lines, number, target, marks))
    ]


def read_target_rate(directory: Path) -> float | None:
    """Return the rate of bad replies at which training was to end, from run.yaml; None where it is not given."""
    try:
        config = read_yaml((directory / "run.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    value = config.get("target_rate") if isinstance(config, dict) else None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _by_stage(path: Path) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            raw: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(raw, dict) and _is_metric(raw.get("step")):
            stage = raw.get("stage") if isinstance(raw.get("stage"), str) else ""
            metrics = {key: float(value) for key, value in raw.items() if _is_metric(value)}
            found.setdefault(inert_line(str(stage), 60), []).append(metrics)
    return found


def _is_metric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30 and math.isfinite(value)


def _figures(
    lines: list[dict[str, float]], number: int, target: float | None, marks: tuple[plots.VerticalLine, ...]
) -> list[plots.Figure]:
    """Draw every plot for which the lines have metrics."""
    wanted = list(_PLOTS)
    if not any("forget_ce" in line for line in lines):
        wanted.insert(0, _PLAIN_LOSS)
    figures = []
    for plot in wanted:
        drawn = [line for place, key in enumerate(plot.keys) if (line := _line(lines, key, place, plot.x)).points]
        if not any(len(line.points) > 1 or line.dots for line in drawn):
            continue
        rates = plot.name == "validation"
        told = [
            f"{_NAMES.get(key, 'from')} {_said(line, rates, plot.x)}"
            for key, line in zip(plot.keys, drawn, strict=False)
        ]
        marked = marks if plot.x == "step" else ()
        chart = plots.Chart(
            name=f"curve-{number}-{plot.name}",
            title=plot.title,
            description=f"{'; '.join(told)}.",
            x=plot.x,
            y=plot.y,
            lines=drawn,
            marks=marked,
            target=target if rates else None,
            percent_y=rates,
            x_end=max([*(x for line in drawn for x, _ in line.points), *(mark.x for mark in marked)]),
        )
        goal = f" The dotted line is the target, {wording.number(target)}." if rates and target else ""
        ends = f"{chart.description[0].upper()}{chart.description[1:]}"
        figures.append(plots.draw(chart, f"{plot.says}{goal} {ends}"))
    return figures


def _line(lines: list[dict[str, float]], key: str, series: int, x: str = "step") -> plots.Line:
    points = [(line[x], line[key]) for line in lines if key in line and x in line]
    if x != "step":
        points.sort()
    dots = key.startswith("validation_")
    if len(points) > _POINTS:
        stride = len(points) / _POINTS
        points = [points[int(place * stride)] for place in range(_POINTS)] + points[-1:]
    return plots.Line(points, series=series, dots=dots, hollow=dots and series > 0)


def _said(line: plots.Line, rates: bool, x: str) -> str:
    unit = "fraction" if rates else ""
    first, last = line.points[0], line.points[-1]
    start, end = (wording.number(value if abs(value) > 1e-6 else 0.0, unit) for value in (first[1], last[1]))
    places = (f"{x} {point[0]:.0f}" if x == "step" else f"{x} {point[0]:.2g}" for point in (first, last))
    return f"{start} at {next(places)}, {end} at {next(places)}"


def _marks(report: Report) -> tuple[plots.VerticalLine, ...]:
    """Mark where training ended and, where the learning rate had to fall first, where the rule was met."""
    if report.stop is None:
        return ()
    marks = [plots.VerticalLine(report.stop.step, "ended")]
    if report.stop.met_at is not None and report.stop.met_at < report.stop.step:
        marks.insert(0, plots.VerticalLine(report.stop.met_at, "target met", dashed=True))
    return tuple(marks)
