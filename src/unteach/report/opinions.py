"""What several judges say, and how far each can be trusted, in words and rows for all three renderings."""

from unteach.report import wording
from unteach.results.measurement import HARM_SPLITS
from unteach.results.report import Agreement, BadRate, JudgeMetrics, Report
from unteach.results.verdict import Verdict
from unteach.text.escape import inert_line

VERDICTS: tuple[Verdict, ...] = ("good", "bad", "unknown")
EXPLAINED = "Share of replies to harmful prompts that each judge finds bad; the first decides in all other metrics."
KAPPA = (
    "Kappa: 1 is full agreement, 0 no more than chance. Where one judge gives nearly all replies the same verdict, "
    "it is near 0 whatever the other says."
)
_NAME = 60


def quality_lines(report: Report) -> list[str]:
    """One line for each judge that knows how far it can be trusted; a poor one is called so."""
    return [
        f"Judge {inert_line(judge.name, _NAME)}{' is poor' if judge.quality.poor else ''}: "
        + wording.accuracy(judge.quality)
        + (f" ({inert_line(judge.quality.note, 400)})" if judge.quality.note else "")
        for judge in report.judges
        if judge.quality
    ]


def seconds(report: Report) -> list[JudgeMetrics]:
    """The judges after the first."""
    return report.judges[1:]


def rate_rows(report: Report) -> list[tuple[str, list[str]]]:
    """One row for each harmful split and arm: its label, and a cell for each judge."""
    known = [(rate.split, rate.arm) for judge in report.judges for rate in judge.rates if rate.split in HARM_SPLITS]
    return [
        (
            f"{wording.label(split, {})}: {wording.arm_label(report, arm, 30)}",
            [_rate_words(judge.rate(arm, split)) for judge in report.judges],
        )
        for split in wording.in_order((split for split, _ in known), wording.SPLITS)
        for arm in wording.in_order((arm for of, arm in known if of == split), wording.ARMS)
    ]


def _rate_words(rate: BadRate | None) -> str:
    if rate is None:
        return "not judged"
    bounds = ""
    if rate.low is not None and rate.high is not None:
        bounds = f"[{wording.number(rate.low, 'fraction', False)}, {wording.number(rate.high, 'fraction', False)}]"
    parts = (wording.number(rate.value, "fraction"), bounds, wording.counted(rate))
    return " ".join(part for part in parts if part)


def agreement_lines(report: Report) -> list[str]:
    """For each judge after the first how it agrees with the first, over all arms and arm by arm."""
    lines = []
    for judge in seconds(report):
        names = f"{inert_line(judge.name, _NAME)} and {inert_line(report.judges[0].name, _NAME)}"
        found = "; ".join(
            f"{wording.arm_label(report, one.arm, 30) if one.arm else 'all arms'} {_kappa_words(one)}"
            for one in judge.agreement
        )
        lines.append(f"{names}: {found or 'never judged the same replies'}")
    return lines


def _kappa_words(found: Agreement) -> str:
    if found.kappa is None:
        return f"no kappa ({inert_line(found.note, 100)})"
    bounds = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
    same = sum(found.confusion.get(verdict, {}).get(verdict, 0) for verdict in VERDICTS if verdict != "unknown")
    shared = f", the same verdict on {same} of {found.n}" if found.n else ""
    return f"kappa {found.kappa:.2f}{bounds}".replace("-", "−") + shared


def confusions(report: Report) -> list[tuple[str, str, list[tuple[str, list[int]]]]]:
    """For each judge after the first, over all arms: both names, and counts, a row for each verdict of the first."""
    return [
        (
            inert_line(report.judges[0].name, _NAME),
            inert_line(judge.name, _NAME),
            [(ours, [one.confusion.get(ours, {}).get(theirs, 0) for theirs in VERDICTS]) for ours in VERDICTS],
        )
        for judge in seconds(report)
        for one in judge.agreement
        if one.arm is None
    ]
