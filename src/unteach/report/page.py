"""The page: report.html, one file that needs no network, made from the run directory alone."""

from pathlib import Path
from typing import Any

from unteach.objectives.methods import load_method, method_names
from unteach.report import html, opinions, study, wording
from unteach.report.outcome import doubts, headline_rows, outcome
from unteach.report.samples import samples
from unteach.report.training import LOG, stages
from unteach.results.files import write_whole
from unteach.results.report import OWN_ANSWERS, Report
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert

FILE_NAME = "report.html"
_SETTINGS = "run.yaml"
_CONFIG_CHARACTERS = 60_000


def write_page(report: Report, directory: str | Path) -> Path:
    """Write report.html into the run directory; raises OutputError where it cannot be written."""
    return write_whole(Path(directory) / FILE_NAME, page(report, directory))


def gaps(report: Report, directory: str | Path) -> dict[str, str]:
    """What a page lacks because the run directory lacks a file: a sentence for "training", and one for "again"."""
    place, told = Path(directory), {}
    if wording.how_it_ended(report) and not (place / LOG).is_file() and not _has_seeds(report):
        told["training"] = f"No curves, because there is no {LOG} in the run directory."
    if not (place / _SETTINGS).is_file():
        told["again"] = f"No settings and no command, because there is no {_SETTINGS} in the run directory."
    return told


def page(report: Report, directory: str | Path | None = None) -> str:
    """The report as one HTML file; everything a model or a data set wrote is escaped and made inert.

    The curves come from log.jsonl and the settings from run.yaml of the run directory, where it is given.
    """
    arms = [arm for arm in report.arms() if any(metric.arm == arm for metric in report.measurements)]
    grids = study.grids(report) if study.is_study(report) and report.measurements else []
    shown = [arm for arm in arms if arm in ("original", wording.tested_arm(report), "retrained")]
    trained = stages(report, Path(directory)) if directory is not None else []
    content: dict[str, Any] = {
        "report": report,
        "outcome": outcome(report),
        "headline": study.headline(report),
        "about": _about(report),
        "ended": wording.how_it_ended(report),
        "headline_arms": [wording.arm_label(report, arm) for arm in shown],
        "headline_rows": [] if grids else headline_rows(report, shown),
        "doubts": doubts(report),
        "sureness": _sureness(report),
        "arms": [wording.arm_label(report, arm) for arm in arms],
        "grids": grids,
        "splits": [] if grids else [(split, _rows(report, split, arms)) for split in wording.splits(report)],
        "stages": trained,
        "gaps": gaps(report, directory) if directory is not None else {},
        "samples": samples(report),
        "opinions": opinions,
        "has_energy": any(cost.energy_joules is not None for cost in report.cost),
        "config": _config(directory),
    }
    return html.whole("page.html.jinja", "page.js", sections=_sections(report, content), **content)


def _sections(report: Report, content: dict[str, Any]) -> list[tuple[str, str]]:
    """The links at the top, to the sections that there are."""
    known = [
        ("training", "Training", content["stages"] or content["ended"]),
        ("samples", "Samples", content["samples"]),
        ("metrics", "All metrics", content["splits"] or content["grids"]),
        ("judges", "Judges", opinions.seconds(report) or opinions.quality_lines(report)),
        ("cost", "Cost", report.cost),
        ("data", "Data", report.data),
        ("again", "Do it again", True),
    ]
    return [(name, title) for name, title, there in known if there]


def _about(report: Report) -> list[tuple[str, str]]:
    """What was unlearned, from what, with which method, judged by whom."""
    negatives = next((source for source in report.data if source.name in ("negatives", "forget")), None)
    stop = wording.BAD_RATES[bad_rate_of(report.scenario)]
    if negatives:
        stop += f" ({negatives.rows:,} of {_tail(negatives.source)})"
    kept = next((source for source in report.data if source.name == "normals"), None)
    known = [("What had to stop", stop), ("In which model", _tail(report.model))]
    if kept:
        place = kept.source if kept.source.startswith(OWN_ANSWERS) else _tail(kept.source)
        known.append(("What had to stay", f"{kept.rows:,} normal rows of {place}"))
    known.append(("How", _method(report)))
    exact = ", which knows right and wrong in this generated world" if report.judge.startswith("world:") else ""
    return [*known, ("Judged by", report.judge + exact)] if report.judge else known


def _tail(path: str) -> str:
    """The last part of a path, by which a person knows it; the table of data has all of it."""
    return path.rstrip("/").rpartition("/")[2] or path


def _method(report: Report) -> str:
    if report.method == "none":
        return "nothing was trained: the model was measured as it is"
    summary = load_method(report.method).summary if report.method in method_names() else ""
    text = f"{report.method}: {summary}" if summary else report.method
    if wording.is_baseline(report):
        told = next((note for note in report.notes if note.startswith(f"{report.method}: ")), report.method)
        text = f"baseline {told}"
    trained = [cost.wall_seconds for cost in report.cost if "check" not in cost.stage and cost.arm != "original"]
    seconds = sum(value for value in trained if value is not None)
    steps = f"{report.stop.step:,} steps" if report.stop else ""
    took = [part for part in (steps, wording.seconds(seconds) if seconds else "") if part]
    return f"{text} ({', '.join(took)})" if took else text


def _has_seeds(report: Report) -> bool:
    """Whether it sums up several seeds, each of which has its curves in a directory of its own."""
    return any(metric.seeds for metric in report.measurements)


def _sureness(report: Report) -> str:
    """What the intervals say and what they do not."""
    seeds = max((len(metric.seeds or []) for metric in report.measurements), default=0)
    text = "Brackets and whiskers are 95 % intervals: how far other prompts of the same kind would move a metric."
    if seeds:
        text = f"Figures are means over {seeds} seeds; brackets and whiskers are 95 % intervals over those seeds."
    elif report.method != "none":
        text += " One seed was run; another may end elsewhere."
    return f"{text} They do not cover a wrong judge, other kinds of prompts, or attacks on the model."


def _config(directory: str | Path | None) -> str:
    if directory is None:
        return ""
    try:
        with (Path(directory) / _SETTINGS).open(encoding="utf-8", errors="replace") as file:
            return inert(file.read(_CONFIG_CHARACTERS))
    except OSError:
        return ""


def _rows(report: Report, split: str, arms: list[str]) -> list[tuple[str, list[html.Cell | None]]]:
    rows = []
    for name in wording.metric_names(report, split):
        metrics = [report.measured(name, split, arm) for arm in arms]
        end = html.axis_end(metrics)
        cells = [None if metric is None else html.cell(report, metric, end) for metric in metrics]
        rows.append((wording.metric_label(report, name), cells))
    return rows
