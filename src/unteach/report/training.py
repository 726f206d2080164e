"""How training went: the curves of log.jsonl, with the step at which it ended and why."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from unteach.report import plots, wording
from unteach.results.report import Report
from unteach.text.escape import inert_line

LOG = "log.jsonl"
_LARGEST = 64_000_000  # bytes; a longer log is no log of ours
_POINTS = 300  # of one curve; more would not be seen
_STAGES = 6


@dataclass(frozen=True)
class Curve:
    """One plot of a stage of training, and what it shows in words."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Stage:
    """The curves of one training; `name` is empty where a run has one only."""

    name: str
    curves: list[Curve]


@dataclass(frozen=True)
class _Wanted:
    name: str
    title: str
    y: str
    keys: tuple[str, ...]
    says: str


_CURVES = (
    _Wanted(
        "forget",
        "Loss on the bad replies",
        "nats per token",
        ("forget_ce",),
        "Cross-entropy of the bad replies in each batch: it rises as they become unlikely.",
    ),
    _Wanted(
        "kl",
        "KL to the original, normal rows",
        "nats per token",
        ("kl", "validation_kl"),
        "How far the model has drifted on normal rows. Line: rows it trains on; squares: rows held out.",
    ),
    _Wanted(
        "checks",
        "Bad replies at the checks",
        "share of replies",
        ("validation_bad_rate", "validation_broken_rate"),
        "Replies to validation prompts. Dots: bad; squares: broken (blank or gibberish).",
    ),
    _Wanted("rate", "Learning rate", "", ("learning_rate",), "It rises first and falls at the end."),
    _Wanted("reward", "Reward", "", ("reward",), "Mean reward of the sampled replies of each step."),
    _Wanted("margin", "Reward margin", "", ("rewards/margins",), "How much more the good reply is preferred."),
)
_PLAIN_LOSS = _Wanted("loss", "Loss", "", ("loss",), "The training loss of each step.")
_CHECKED = "validation_"


def stages(report: Report, directory: Path) -> list[Stage]:
    """Read the log of a run directory and draw it; empty where there is none. Lines that are no metrics are skipped."""
    found = list(_by_stage(directory / LOG).items())[:_STAGES]
    target = target_rate(directory)
    drawn = [
        Stage(name, curves)
        for number, (name, lines) in enumerate(found)
        if (curves := _curves(report, lines, number, target, single=len(found) == 1))
    ]
    return drawn


def target_rate(directory: Path) -> float | None:
    """The rate of bad replies at which training was to end, from run.yaml; None where it is not said."""
    try:
        config = yaml.safe_load((directory / "run.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
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


def _curves(
    report: Report, lines: list[dict[str, float]], number: int, target: float | None, single: bool
) -> list[Curve]:
    wanted = list(_CURVES)
    if not any("forget_ce" in line for line in lines):
        wanted.insert(0, _PLAIN_LOSS)
    curves = []
    for one in wanted:
        drawn = [_line(lines, key, place) for place, key in enumerate(one.keys)]
        drawn = [line for line in drawn if line.points]
        if drawn and any(len(line.points) > 1 or line.dots for line in drawn):
            curves.append(_curve(report, one, drawn, number, target, single))
    return curves


def _line(lines: list[dict[str, float]], key: str, series: int) -> plots.Line:
    points = [(line["step"], line[key]) for line in lines if key in line]
    dots = key.startswith(_CHECKED)
    if len(points) > _POINTS:
        stride = len(points) / _POINTS
        points = [points[int(place * stride)] for place in range(_POINTS)] + points[-1:]
    return plots.Line(points, series=series, dots=dots, hollow=dots and series > 0)


def _curve(
    report: Report, one: _Wanted, lines: list[plots.Line], number: int, target: float | None, single: bool
) -> Curve:
    checks = one.name == "checks"
    told = [f"{_named(key)} {_said(line, checks)}" for key, line in zip(one.keys, lines, strict=False)]
    goal = f" The dotted line is the target, {wording.number(target, 'fraction')}." if checks and target else ""
    caption = f"{one.says}{goal}"
    marks = _marks(report) if single else ()
    chart = plots.Chart(
        name=f"curve-{number}-{one.name}",
        title=one.title,
        description=f"{'; '.join(told)}.",
        x="step",
        y=one.y,
        lines=lines,
        marks=marks,
        target=target if checks else None,
        percent_y=checks,
        x_end=max([*(x for line in lines for x, _ in line.points), *(mark.x for mark in marks)]),
    )
    return Curve(one.title, plots.drawn(chart), f"{caption} {chart.description[0].upper()}{chart.description[1:]}")


def _named(key: str) -> str:
    names = {"validation_bad_rate": "bad", "validation_broken_rate": "broken", "validation_kl": "held out"}
    return names.get(key, "from")


def _said(line: plots.Line, checks: bool) -> str:
    unit = "fraction" if checks else ""
    first, last = line.points[0], line.points[-1]
    start, end = (wording.number(value if abs(value) > 1e-6 else 0.0, unit) for value in (first[1], last[1]))
    return f"{start} at step {first[0]:.0f}, {end} at step {last[0]:.0f}"


def _marks(report: Report) -> tuple[plots.Mark, ...]:
    """Where training ended and, where the learning rate then had to fall first, where a rule was met."""
    if report.stop is None:
        return ()
    marks = [plots.Mark(report.stop.step, "ended")]
    met = re.match(r"at step (\d{1,9})\b", report.stop.message)
    if met and int(met[1]) < report.stop.step:
        marks.insert(0, plots.Mark(int(met[1]), "rule met", dashed=True))
    return tuple(marks)
