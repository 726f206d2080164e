"""What several judges say and how far each can be trusted: lines and tables for every rendering."""

from unteach.report import wording
from unteach.report.grid import Grid
from unteach.report.headline import accuracy
from unteach.results.arms import ARMS, in_order
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


def quality_lines(report: Report) -> list[str]:
    """Return one line for each judge whose accuracy is known; a poor judge is called poor."""
    return [
        f"Judge {_name(judge)}{' is poor' if judge.quality.poor else ''}: {accuracy(judge.quality)}"
        + (f" ({inert_line(judge.quality.note, 400)})" if judge.quality.note else "")
        for judge in report.judges
        if judge.quality
    ]


def has_second_opinions(report: Report) -> bool:
    """Whether more than one judge gave verdicts."""
    return len(report.judges) > 1


def rates_table(report: Report) -> Grid:
    """Return how often each judge finds each arm bad, on the splits of harmful prompts."""
    known = [(rate.split, rate.arm) for judge in report.judges for rate in judge.rates if rate.split in HARM_SPLITS]
    rows = [
        [
            f"{wording.label(split, {})}: {wording.arm_label(report, arm, 30)}",
            *(_rate_words(judge.rate(arm, split)) for judge in report.judges),
        ]
        for split in in_order((split for split, _ in known), wording.SPLITS)
        for arm in in_order((arm for of, arm in known if of == split), ARMS)
    ]
    return Grid(["split and arm", *map(_name, report.judges)], rows)


def _rate_words(rate: BadRate | None) -> str:
    return "not judged" if rate is None else f"{wording.estimate(rate)} {wording.counted(rate)}"


def agreement_lines(report: Report) -> list[str]:
    """Say for each judge after the first how it agrees with the first, over all arms and arm by arm."""
    lines = []
    for judge in report.judges[1:]:
        found = "; ".join(
            f"{wording.arm_label(report, one.arm, 30) if one.arm else 'all arms'} {_kappa_words(one)}"
            for one in judge.agreement
        )
        lines.append(f"{_name(judge)} and {_name(report.judges[0])}: {found or 'never judged the same replies'}")
    return lines


def _kappa_words(found: Agreement) -> str:
    if found.kappa is None:
        return f"no kappa ({inert_line(found.note, 100)})"
    bounds = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
    same = sum(found.confusion.get(verdict, {}).get(verdict, 0) for verdict in VERDICTS if verdict != "unknown")
    shared = f", the same verdict on {same} of {found.n}" if found.n else ""
    return f"kappa {found.kappa:.2f}{bounds}".replace("-", "−") + shared


def confusion_tables(report: Report) -> list[Grid]:
    """Count, for each judge after the first, replies by both verdicts over all arms; a row for each of the first's."""
    return [
        Grid(
            [f"{_name(report.judges[0])}, down; {_name(judge)}, across", *VERDICTS],
            [[ours, *(str(one.confusion.get(ours, {}).get(theirs, 0)) for theirs in VERDICTS)] for ours in VERDICTS],
            (1, 2, 3),
        )
        for judge in report.judges[1:]
        for one in judge.agreement
        if one.arm is None
    ]


def _name(judge: JudgeMetrics) -> str:
    return inert_line(judge.name, 60)
