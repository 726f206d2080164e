"""The page report.html: one file that needs no network, made from the run directory alone."""

from pathlib import Path
from typing import Any

from unteach.disk.files import write_whole
from unteach.objectives.methods import load_method, method_names
from unteach.report import opinions, study, wording
from unteach.report.cells import metric_rows
from unteach.report.grid import cost_table, data_table, environment_table, halves_table
from unteach.report.headline import headline, tested_arm
from unteach.report.html import render_page
from unteach.report.outcome import doubts, headline_rows, outcome
from unteach.report.samples import samples
from unteach.report.strength import frontier
from unteach.report.stress import read_card, stress_doubts, stress_section
from unteach.report.training import LOG, draw_stages
from unteach.results.arms import ORIGINAL, RETRAINED
from unteach.results.report import OWN_ANSWERS, Report
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert, inert_line

FILE_NAME = "report.html"
_SETTINGS = "run.yaml"
_CONFIG_CHARACTERS = 60_000


def write_page(report: Report, directory: str | Path) -> Path:
    """Write report.html into the run directory; raises OutputError where it cannot be written."""
    return write_whole(Path(directory) / FILE_NAME, page(report, directory))


def gaps(report: Report, directory: str | Path) -> dict[str, str]:
    """Say what the page lacks because the run directory lacks a file, in its sections "training" and "again"."""
    place, told = Path(directory), {}
    if wording.how_it_ended(report) and not (place / LOG).is_file() and not _has_seeds(report):
        told["training"] = f"No curves, because there is no {LOG} in the run directory."
    if not (place / _SETTINGS).is_file():
        told["again"] = f"No settings and no command, because there is no {_SETTINGS} in the run directory."
    return told


def page(report: Report, directory: str | Path | None = None) -> str:
    """Return the report as one HTML file; everything that a model or a data set wrote is escaped and made inert.

    Where the run directory is given, its log.jsonl adds curves and its run.yaml the settings.
    """
    arms, stressed = report.measured_arms(), read_card(directory)
    grids = study.grids(report) if report.is_study and report.measurements else []
    shown = [arm for arm in arms if arm in (ORIGINAL, tested_arm(report), RETRAINED)]
    content: dict[str, Any] = {
        "report": report,
        "outcome": outcome(report),
        "headline": headline(report),
        "about": _about(report),
        "ended": inert_line(wording.how_it_ended(report), 900),
        "halves": halves_table(report),
        "frontier": frontier(report.strength),
        "headline_arms": wording.arm_labels(report, shown),
        "headline_rows": [] if grids else headline_rows(report, shown),
        "doubts": [*doubts(report), *stress_doubts(stressed)],
        "sureness": _sureness(report),
        "arms": wording.arm_labels(report, arms),
        "grids": grids,
        "splits": [] if grids else metric_rows(report, arms),
        "stages": draw_stages(report, Path(directory)) if directory is not None else [],
        "gaps": gaps(report, directory) if directory is not None else {},
        "stress": stress_section(stressed),
        "samples": samples(report),
        "opinions": opinions,
        "cost": cost_table(report, joined=False),
        "data": data_table(report),
        "environment": environment_table(report),
        "config": _config(directory),
    }
    return render_page("page.html.jinja", "page.js", sections=_sections(report, content), **content)


def _sections(report: Report, content: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the links at the top of the page, to the sections that there are."""
    known = [
        ("training", "Training", content["stages"] or content["ended"]),
        ("stress", "Stress", content["stress"]),
        ("samples", "Samples", content["samples"]),
        ("metrics", "All metrics", content["splits"] or content["grids"]),
        ("judges", "Judges", opinions.has_second_opinions(report) or opinions.quality_lines(report)),
        ("cost", "Cost", report.cost),
        ("data", "Data", report.data),
        ("again", "Do it again", True),
    ]
    return [(name, title) for name, title, there in known if there]


def _about(report: Report) -> list[tuple[str, str]]:
    """Say what was unlearned, in which model, by which method, and who judged."""
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
    """Return the last part of a path, which is what a reader knows it by; the table of data has all of it."""
    return path.rstrip("/").rpartition("/")[2] or path


def _method(report: Report) -> str:
    if report.method == "none":
        return "nothing was trained: the model was measured as it is"
    summary = load_method(report.method).summary if report.method in method_names() else ""
    text = f"{report.method}: {summary}" if summary else report.method
    if report.is_baseline:
        told = next((note for note in report.notes if note.startswith(f"{report.method}: ")), report.method)
        text = f"baseline {told}"
    trained = [cost.wall_seconds for cost in report.cost if not cost.is_evaluation and cost.arm != ORIGINAL]
    seconds = sum(value for value in trained if value is not None)
    steps = f"{report.stop.step:,} steps" if report.stop else ""
    took = [part for part in (steps, wording.seconds(seconds) if seconds else "") if part]
    return f"{text} ({', '.join(took)})" if took else text


def _has_seeds(report: Report) -> bool:
    """Whether the report is on several seeds, each of which has its curves in a directory of its own."""
    return any(metric.seeds for metric in report.measurements)


def _sureness(report: Report) -> str:
    """Say what the intervals cover and what they do not."""
    seeds = max((len(metric.seeds or []) for metric in report.measurements), default=0)
    text = "Brackets and whiskers are 95 % intervals: how far other prompts of the same kind would move a metric."
    if seeds:
        text = f"Metrics are means over {seeds} seeds; brackets and whiskers are 95 % intervals over those seeds."
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
