"""A comparison as tables and a paragraph, for the terminal, as JSON and as Markdown."""

import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.text import Text

from unteach.comparison.compare import ArmCost, ComparedArm, Comparison, Rate
from unteach.comparison.pairs import FEWEST_DIFFERING
from unteach.disk.files import write_whole
from unteach.errors import ConfigError, OutputError
from unteach.report import wording
from unteach.report.grid import Grid, markdown_table, terminal_tables
from unteach.results.report import FILE_NAME
from unteach.text.escape import inert_line, terminal_text

PIPE_WIDTH = 160  # columns where no terminal says how many there are
_WIDE = 138  # from so many columns on, rates and costs stand in one table
_TITLES = {
    "bad_seen": "bad,\nseen",
    "bad_unseen": "bad,\nunseen",
    "bad_unseen_concept": "bad, new\nconcepts",
    "blank_unseen": "blank,\nunseen",
    "gibberish_unseen": "gibberish,\nunseen",
    "kept_normal": "kept,\nnormal",
    "refusal_lookalike": "refused,\nlook-alikes",
}
_MUST_FALL = ("bad_seen", "bad_unseen", "bad_unseen_concept", "blank_unseen", "gibberish_unseen")
_MUST_STAY = ("kept_normal", "refusal_lookalike")
_BAD = {"harmful_rate": "harmful", "leak_rate": "leaking", "hallucination_rate": "hallucinated"}

Column = tuple[str, list[str]]
"""A title, and a cell for each arm."""


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the comparison; nothing that a report holds can command the terminal."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    about = f"scenario {comparison.scenario} · model {comparison.model} · {len(comparison.runs)} runs"
    tables = terminal_tables(grids(comparison, console.width))
    console.print(Text(inert_line(about, 400), style="dim"), Text(), tables, sep="\n")
    console.print(terminal_text(paragraph(comparison)), highlight=False)
    for note in comparison.length_notes:
        console.print(Text(inert_line(note, 400), style="dim"), highlight=False)
    for note in comparison.notes:
        console.print(Text(f"Note: {inert_line(note, 800)}", style="yellow"), highlight=False)


def comparison_text(comparison: Comparison) -> str:
    """Return the table, the paragraph and the notes as Markdown, to be put into a document."""
    parts = [f"Scenario {comparison.scenario}, model {inert_line(comparison.model, 200)}."]
    parts += [markdown_table(grid) for grid in grids(comparison, _WIDE)]
    parts.append(paragraph(comparison))
    parts.append("\n".join(f"- {inert_line(note, 1000)}" for note in (*comparison.length_notes, *comparison.notes)))
    return "\n\n".join(parts).rstrip() + "\n"


def write(comparison: Comparison, path: Path) -> None:
    """Write all of it as JSON. Raises ConfigError for the report of a run, OutputError where it cannot be written."""
    notes = comparison.notes
    whole = comparison.model_dump(exclude={"notes"}) | {"summary": paragraph(comparison), "notes": notes}
    write_beside(comparison, path, json.dumps(whole, indent=1, allow_nan=False) + "\n", "--json", FILE_NAME, "report")


def write_beside(comparison: Comparison, path: Path, text: str, flag: str, file_name: str, what: str) -> Path:
    """Write the file that `flag` names, which must not replace the `what` of a compared run, called `file_name`.

    Raises ConfigError where it would, OutputError where the file cannot be written.
    """
    if path.resolve() in {(Path(run) / file_name).resolve() for run in comparison.runs}:
        raise ConfigError(f"{flag} {path}: is the {what} of a run that is compared; choose another file")
    try:
        return write_whole(path, text)
    except OutputError as error:
        message = str(error).replace("another --output", f"another file for {flag}")
        raise OutputError(message.replace("name a file", f"name another file for {flag}")) from error


def grids(comparison: Comparison, width: int) -> list[Grid]:
    """Return the metrics as one table, or as two where the terminal is narrow; each has a row for each arm."""
    fall = _rates(comparison, _MUST_FALL)
    stay = [*_rates(comparison, _MUST_STAY), *_costs(comparison)]
    names = [arm_name(arm.name) for arm in comparison.arms]
    return [
        Grid(
            ["%, with 95 % interval", *(title for title, _ in block)],
            [[name, *(cells[n] for _, cells in block)] for n, name in enumerate(names)],
        )
        for block in ([[*fall, *stay]] if width >= _WIDE else [fall, stay])
    ]


def paragraph(comparison: Comparison) -> str:
    """Say which arms can be told apart by how often they are bad, and how little that proves."""
    pairs = [pair for pair in comparison.pairs if pair.compared]
    if not pairs:
        return "No two arms were judged on the same unseen prompts, so it cannot be said which of them differ."
    counts = sorted({pair.n for pair in pairs})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = f"Compared prompt by prompt on {n} unseen prompts by how often they are bad, "
    if not comparison.groups:
        text += "all arms that could be compared are told apart."
    else:
        text += "these arms cannot be told apart: " + "; ".join(_listed(group) for group in comparison.groups) + "."
        together = {frozenset(pair) for group in comparison.groups for pair in combinations(group, 2)}
        reach = max(pair.reach for pair in pairs if {pair.arm, pair.against} in together)
        text += (
            " That does not show that they are alike: the verdicts leave room for differences of up to "
            f"{100 * reach:.1f} points, and say nothing of other prompts or other seeds."
        )
        members = [arm for group in comparison.groups for arm in group]
        if len(members) > len(set(members)):
            text += " An arm may stand in two groups whose other arms are told apart from each other."
    text += (
        " Told apart means that the 95 % interval of the paired difference leaves out 0 and that at least "
        f"{FEWEST_DIFFERING} prompts differ; of the {len(pairs)} pairs, one in twenty may seem so by chance."
    )
    if unknown := max(pair.unknown for pair in comparison.pairs):
        text += f" Up to {unknown} prompts of a pair were left out, for one of the two replies got no verdict."
    judged = {name for pair in pairs for name in (pair.arm, pair.against)}
    if missing := [arm.name for arm in comparison.arms if arm.name not in judged]:
        text += f" Without verdicts to compare: {_listed(missing)}."
    return text


def _listed(names: Sequence[str]) -> str:
    return wording.listed([arm_name(name) for name in names])


def arm_name(name: str) -> str:
    """Return an arm's name made inert."""
    return inert_line(name, 60)


# ---- cells -----------------------------------------------------------------------------------------------------------


def _rates(comparison: Comparison, keys: Sequence[str]) -> list[Column]:
    """Return a column for each rate that any arm has."""
    columns = []
    for key in keys:
        rates = [arm.rates.get(key) for arm in comparison.arms]
        names = {rate.name for rate in rates if rate}
        if names:
            title = _TITLES[key]
            if len(names) == 1 and (bad := _BAD.get(next(iter(names)))):
                title = title.replace("bad", bad)
            if names == {"right_rate"}:
                title = title.replace("kept", "right")
            columns.append((title, [_rate(rate) for rate in rates]))
    return columns


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "–"
    parts = [wording.number(rate.value, with_sign=False)]
    if rate.low is not None and rate.high is not None:
        parts.append(f"[{_bound(rate.low)}, {_bound(rate.high)}]")
    parts.append(f"n={rate.n}")
    return "\n".join([*parts, f"{rate.unknown} unknown"] if rate.unknown else parts)


def _bound(value: float) -> str:
    """Return a bound in percent: one decimal below 10, none above."""
    return f"{100 * value:.1f}" if 100 * value < 9.95 else f"{100 * value:.0f}"


def _costs(comparison: Comparison) -> list[Column]:
    arms = comparison.arms
    if not any(arm.cost for arm in arms):
        return []
    base = inert_line(comparison.relative_to or "", 20)
    columns = [
        ("compute", [flops(arm.cost) for arm in arms]),
        ("time", [wording.seconds(arm.cost.wall_seconds if arm.cost else None) for arm in arms]),
    ]
    if comparison.relative_to is not None:
        columns.append((f"compute\n÷ {base}", [_share_of_compute(arm.cost) for arm in arms]))
        columns.append((f"time\n÷ {base}", [_share(arm.cost.relative_seconds if arm.cost else None) for arm in arms]))
    if any(arm.matched for arm in arms):
        columns.append((f"compute to\n≤ {comparison.target:.0%} bad", [_matched(arm) for arm in arms]))
        shares = [arm.matched.relative_flops if arm.matched else None for arm in arms]
        if any(shares):
            columns.append((f"that\n÷ {base}", [_share(share) for share in shares]))
    return columns


def flops(cost: ArmCost | None) -> str:
    """Return what an arm took in compute, with "≥" where some stages were not counted."""
    if cost is None or cost.flops is None:
        return "–"
    return ("≥ " if cost.uncounted else "") + wording.size(cost.flops, "FLOP")


def _share_of_compute(cost: ArmCost | None) -> str:
    """Return a share of another arm's compute, with the least and the largest share of its seeds."""
    if cost is None:
        return "–"
    text, least, most = map(_share, (cost.relative_flops, cost.relative_low, cost.relative_high))
    return text if least == most else f"{text}\n[{least}, {most}]"


def _matched(arm: ComparedArm) -> str:
    """Return what an arm had cost when it first reached the target, with the least and the most of its runs."""
    found = arm.matched
    if found is None or arm.cost is None:
        return "–"
    if not found.reached:
        return f"never\n0 of {found.runs}"
    least, most = (wording.size(value, "FLOP") for value in (found.flops_low, found.flops_high))
    spread = "" if found.reached == 1 or least == most else f"\n[{least}, {most}]"
    counted = "" if found.runs == 1 else f"\n{found.reached} of {found.runs}"
    return f"{'≤ ' if found.first_validation else ''}{wording.size(found.flops, 'FLOP')}{spread}{counted}"


def _share(value: float | None) -> str:
    """Return a share of another arm's cost: in percent, from ten times on in times."""
    if value is None:
        return "–"
    if value >= 10:
        return f"{value:.0f} times"
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2g} %"
