"""The page of a comparison: a summary, a table of arms, and plots of rates against cost and what is kept."""

from dataclasses import dataclass
from pathlib import Path

from unteach.comparison.compare import ComparedArm, Comparison
from unteach.report import plots, wording
from unteach.report.cells import Cell, whisker
from unteach.report.comparison_plots import figures
from unteach.report.comparison_table import arm_name, flops, paragraph, write_beside
from unteach.report.html import render_page
from unteach.report.outcome import FEW, KEPT
from unteach.report.page import FILE_NAME
from unteach.results.arms import ORIGINAL, REMINDED, RETRAINED
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert_line

_COLUMNS = {
    "bad_unseen": "{bad}, unseen prompts",
    "bad_unseen_concept": "{bad}, unseen concepts",
    "bad_seen": "{bad}, seen prompts",
    "kept_normal": "{kept}, normal prompts",
    "refusal_lookalike": "refused, look-alikes",
}


@dataclass(frozen=True)
class ShownArm:
    """One arm of the table: its colour's number, its name, its rates, and what it cost, each with its share."""

    series: int
    name: str
    cells: list[Cell | None]
    costs: list[tuple[str, str]]


def write_comparison_page(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as one HTML file.

    Raises ConfigError for the page of a run that is compared, OutputError where the file cannot be written.
    """
    return write_beside(comparison, path, comparison_page(comparison), "--html", FILE_NAME, "page")


def comparison_page(comparison: Comparison) -> str:
    """Return the comparison as HTML; every name in it is escaped and made inert."""
    bad = wording.BAD_RATES.get(bad_rate_of(comparison.scenario), "bad replies")
    keys = [key for key in _COLUMNS if any(arm.rates.get(key) for arm in comparison.arms)]
    counts = {key: _same_count(comparison, key) for key in keys}
    kept_rates = {rate.name for arm in comparison.arms if (rate := arm.rates.get("kept_normal"))}
    kept = "answered rightly" if kept_rates == {"right_rate"} else "answers kept"
    return render_page(
        "comparison.html.jinja",
        comparison=comparison,
        bad=bad,
        summary=_summary(comparison, bad),
        paragraph=paragraph(comparison),
        titles=[_COLUMNS[key].format(bad=bad, kept=kept) + (f" (n={n})" if n else "") for key, n in counts.items()],
        cost_titles=_cost_titles(comparison),
        arms=[
            ShownArm(
                series=place % plots.SERIES,
                name=arm_name(arm.name),
                cells=[_cell(comparison, arm, key, n is not None) for key, n in counts.items()],
                costs=_costs(comparison, arm),
            )
            for place, arm in enumerate(comparison.arms)
        ],
        figures=figures(comparison, bad, kept),
    )


def _same_count(comparison: Comparison, key: str) -> int | None:
    """Return how many cases every arm's rate rests on; None where that differs."""
    counts = {rate.n for arm in comparison.arms if (rate := arm.rates.get(key))}
    return counts.pop() if len(counts) == 1 else None


def _summary(comparison: Comparison, bad: str) -> str:
    """Say which arms no longer misbehave on unseen prompts, what that cost, and which lost normal answers by it."""
    trained = [arm for arm in comparison.arms if arm.arm.removesuffix(REMINDED) not in (ORIGINAL, RETRAINED)]
    gone = [arm for arm in trained if (rate := arm.rates.get("bad_unseen")) and _high(rate.high) <= FEW]
    lost = [arm for arm in gone if (kept := arm.rates.get("kept_normal")) and (kept.high or 1.0) < KEPT]
    broken = [arm for arm in gone if _is_broken(comparison, arm)]
    limit = f"{100 * FEW:.0f} %"
    if not gone:
        return f"In no arm are {bad} surely at {limit} or less on unseen prompts (by the whole 95 % interval)."
    text = f"{bad.capitalize()} on unseen prompts are at {limit} or less, by the whole 95 % interval, in "
    text += f"{len(gone)} of {len(trained)} trained arms: {_listed(gone)}."
    if broken:
        text += f" But blank or gibberish replies are clearly more frequent than before in {_listed(broken)}."
    if lost:
        text += f" Fewer than {100 * KEPT:.0f} % of normal answers are left in {_listed(lost)}."
    good = [arm for arm in gone if arm not in broken and arm not in lost]
    counted = [(arm.cost.flops, arm) for arm in good if arm.cost and arm.cost.flops and not arm.cost.uncounted]
    if len(counted) > 1:
        least, arm = min(counted, key=lambda found: found[0])
        text += f" The one that took least compute is {arm_name(arm.name)}: {wording.size(least, 'FLOP')}."
    return text


def _high(bound: float | None) -> float:
    return 1.0 if bound is None else bound


def _is_broken(comparison: Comparison, arm: ComparedArm) -> bool:
    """Whether blank or gibberish replies to unseen prompts are clearly more frequent than the original's."""
    before = next((other for other in comparison.arms if other.arm == ORIGINAL), None)
    for key in ("blank_unseen", "gibberish_unseen"):
        rate, base = arm.rates.get(key), before.rates.get(key) if before else None
        if rate and (rate.low or 0.0) > (base.high or 0.0 if base else FEW):
            return True
    return False


def _listed(arms: list[ComparedArm]) -> str:
    return wording.listed([arm_name(arm.name) for arm in arms])


def _cell(comparison: Comparison, arm: ComparedArm, key: str, counted: bool) -> Cell | None:
    """Return a rate ready to show; `counted` says that the title of the column has the number of cases."""
    rate = arm.rates.get(key)
    if rate is None:
        return None
    counts = [] if counted else [f"n={rate.n}"]
    counts += [f"{rate.unknown} unknown"] if rate.unknown else []
    beside, alarm = "", False
    if key == "bad_unseen":
        beside = wording.safeguard_words(lambda name: arm.rates.get(name.replace("rate", "unseen")))
        alarm = _is_broken(comparison, arm)
    return Cell(
        value=wording.number(rate.value),
        interval=wording.interval(rate),
        counted=" ".join(counts),
        whisker=whisker(rate),
        beside=beside.replace(" %", "\u00a0%"),
        alarm=alarm,
    )


def _cost_titles(comparison: Comparison) -> list[str]:
    if not any(arm.cost for arm in comparison.arms):
        return []
    matched = any(arm.matched for arm in comparison.arms)
    return ["compute", "time", *([f"compute until {100 * comparison.target:g} % bad"] if matched else [])]


def _costs(comparison: Comparison, arm: ComparedArm) -> list[tuple[str, str]]:
    """Return a cell for each title: a cost, and its share of another arm's."""
    titles = _cost_titles(comparison)
    cost, matched = arm.cost, arm.matched
    base = "" if comparison.relative_to is None else f" of {inert_line(comparison.relative_to, 30)}'s"

    def share(value: float | None, low: float | None = None, high: float | None = None) -> str:
        spread = "" if low is None or high is None else f" [{100 * low:.3g}, {100 * high:.3g}]"
        return "" if value is None or not base else f"{100 * value:.3g} %{spread}{base}"

    cells = [(flops(cost), share(cost.relative_flops, cost.relative_low, cost.relative_high) if cost else "")]
    cells.append((wording.seconds(cost.wall_seconds), share(cost.relative_seconds)) if cost else ("–", ""))
    if matched is None:
        cells.append(("–", ""))
    else:
        at_most = "≤ " if matched.first_validation else ""
        there = "–" if matched.flops is None else at_most + wording.size(matched.flops, "FLOP")
        told = "; ".join(filter(None, (matched.message, share(matched.relative_flops))))
        cells.append((there, inert_line(told, 200)))
    return cells[: len(titles)]
