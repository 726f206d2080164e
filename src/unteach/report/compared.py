"""Several runs beside each other, for the terminal: the tables and what they say in words."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from unteach.comparison.compare import ArmCost, Compared, Rate, Row
from unteach.comparison.pairs import FEWEST_DIFFERING
from unteach.errors import ConfigError, OutputError
from unteach.report import wording
from unteach.report.grid import Grid, rendered
from unteach.results.files import write_whole
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
_STOPS = ("bad_seen", "bad_unseen", "bad_unseen_concept", "blank_unseen", "gibberish_unseen")
_STAYS = ("kept_normal", "refusal_lookalike")
_BAD = {"harmful_rate": "harmful", "leak_rate": "leaking", "hallucination_rate": "hallucinated"}


def show(compared: Compared, console: Console | None = None) -> None:
    """Print the comparison; nothing that a report holds can command the terminal."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    about = f"scenario {compared.scenario} · model {compared.model} · {len(compared.runs)} runs"
    console.print(Text(inert_line(about, 400), style="dim"), Text(), rendered(grids(compared, console.width)), sep="\n")
    console.print(terminal_text(paragraph(compared)), highlight=False)
    for note in compared.length_notes:
        console.print(Text(inert_line(note, 400), style="dim"), highlight=False)
    for note in compared.notes:
        console.print(Text(f"Note: {inert_line(note, 800)}", style="yellow"), highlight=False)


def write(compared: Compared, path: Path) -> None:
    """Write all of it as JSON. Raises ConfigError for the report of a run, OutputError where it cannot be written."""
    notes = compared.notes
    whole = compared.model_dump(exclude={"notes"}) | {"summary": paragraph(compared), "notes": notes}
    write_beside(compared, path, json.dumps(whole, indent=1, allow_nan=False) + "\n", "--json", FILE_NAME, "report")


def write_beside(compared: Compared, path: Path, text: str, flag: str, file_name: str, what: str) -> Path:
    """Write a file that `flag` names, which must not be the `what` of a run that is compared, called `file_name`.

    Raises ConfigError for such a one, OutputError where the file cannot be written.
    """
    if path.resolve() in {(Path(run) / file_name).resolve() for run in compared.runs}:
        raise ConfigError(f"{flag} {path}: is the {what} of a run that is compared; choose another file")
    try:
        return write_whole(path, text)
    except OutputError as error:
        told = str(error).replace("another --output", f"another file for {flag}")
        raise OutputError(told.replace("name a file", f"name another file for {flag}")) from error


def grids(compared: Compared, width: int) -> list[Grid]:
    """Return the metrics as one table, or as two where the terminal is narrow; each has a row an arm."""
    stops, stays = _rates(compared, _STOPS), [*_rates(compared, _STAYS), *_costs(compared)]
    blocks = [[*stops, *stays]] if width >= _WIDE else [stops, stays]
    names = [_name(row.name) for row in compared.rows]
    found = []
    for block in blocks:
        header = ["%, with 95 % interval", *(title for title, _ in block)]
        found.append(Grid(header, [[name, *(cells[n] for _, cells in block)] for n, name in enumerate(names)]))
    return found


def paragraph(compared: Compared) -> str:
    """Say which arms can be told apart by how often they are bad, and how little that proves."""
    pairs = [pair for pair in compared.pairs if pair.compared]
    if not pairs:
        return "No two arms were judged on the same unseen prompts, so it cannot be said which of them differ."
    counts = sorted({pair.n for pair in pairs})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = f"Compared prompt by prompt on {n} unseen prompts by how often they are bad, "
    if not compared.groups:
        text += "all arms that could be compared are told apart."
    else:
        text += "these arms cannot be told apart: " + "; ".join(_listed(group) for group in compared.groups) + "."
        together = {frozenset(pair) for group in compared.groups for pair in _all_pairs(group)}
        reach = max(pair.reach for pair in pairs if {pair.arm, pair.against} in together)
        text += (
            " That does not show that they are alike: the verdicts leave room for differences of up to "
            f"{100 * reach:.1f} points, and say nothing of other prompts or other seeds."
        )
        members = [arm for group in compared.groups for arm in group]
        if len(members) > len(set(members)):
            text += " An arm may stand in two groups whose other arms are told apart from each other."
    text += (
        " Told apart means that the 95 % interval of the paired difference leaves out 0 and that at least "
        f"{FEWEST_DIFFERING} prompts differ; of the {len(pairs)} pairs, one in twenty may seem so by chance."
    )
    if unknown := max(pair.unknown for pair in compared.pairs):
        text += f" Up to {unknown} prompts of a pair were left out, for one of the two replies got no verdict."
    judged = {name for pair in pairs for name in (pair.arm, pair.against)}
    if missing := [row.name for row in compared.rows if row.name not in judged]:
        text += f" Without verdicts to compare: {_listed(missing)}."
    return text


def _all_pairs(group: list[str]) -> list[tuple[str, str]]:
    return [(a, b) for place, a in enumerate(group) for b in group[place + 1 :]]


def _listed(names: list[str]) -> str:
    shown = [_name(name) for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _name(name: str) -> str:
    return inert_line(name, 60)


def _rates(compared: Compared, keys: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Return a title and the cells of each rate that any arm has."""
    found = []
    for key in keys:
        rates = [row.rates.get(key) for row in compared.rows]
        names = list(dict.fromkeys(rate.name for rate in rates if rate))
        if names:
            title = _TITLES[key]
            if len(names) == 1 and names[0] in _BAD:
                title = title.replace("bad", _BAD[names[0]])
            if names == ["right_rate"]:
                title = title.replace("kept", "right")
            found.append((title, [_cell(rate) for rate in rates]))
    return found


def _cell(rate: Rate | None) -> str:
    if rate is None:
        return "–"
    parts = [wording.number(rate.value, "fraction", False)]
    if rate.low is not None and rate.high is not None:
        parts.append(f"[{_bound(rate.low)}, {_bound(rate.high)}]")
    parts.append(f"n={rate.n}")
    return "\n".join([*parts, f"{rate.unknown} unknown"] if rate.unknown else parts)


def _bound(value: float) -> str:
    """A bound in percent: one decimal below 10, none above."""
    return f"{100 * value:.1f}" if 100 * value < 9.95 else f"{100 * value:.0f}"


def _costs(compared: Compared) -> list[tuple[str, list[str]]]:
    bills = [row.cost for row in compared.rows]
    if not any(bills):
        return []
    found = [
        ("compute", [_flops(bill) for bill in bills]),
        ("time", ["–" if bill is None else wording.seconds(bill.wall_seconds) for bill in bills]),
    ]
    if compared.relative_to is not None:
        name = inert_line(compared.relative_to, 20)
        found.append((f"compute\n÷ {name}", [_compute_ratio(row) for row in compared.rows]))
        found.append((f"time\n÷ {name}", [_ratio(row, "relative_seconds") for row in compared.rows]))
    if any(row.matched for row in compared.rows):
        until = f"compute to\n≤ {compared.target:.0%} bad"
        found.append((until, [_matched(row) for row in compared.rows]))
        shares = [row.matched.relative_flops if row.matched else None for row in compared.rows]
        if any(shares):
            found.append((f"that\n÷ {inert_line(compared.relative_to or '', 20)}", [_share(share) for share in shares]))
    return found


def _flops(bill: ArmCost | None) -> str:
    if bill is None or bill.flops is None:
        return "–"
    return ("≥ " if bill.uncounted else "") + wording.size(bill.flops, "FLOP")


def _ratio(row: Row, which: str) -> str:
    """A share of another arm's cost: in percent, from ten times on in times."""
    return _share(getattr(row.cost, which) if row.cost else None)


def _compute_ratio(row: Row) -> str:
    """A share of another arm's compute, from the least to the most of its seeds."""
    found, cost = _ratio(row, "relative_flops"), row.cost
    if cost is None or cost.relative_low is None or cost.relative_high is None:
        return found
    least, most = _share(cost.relative_low), _share(cost.relative_high)
    return found if least == most else f"{found}\n[{least}, {most}]"


def _matched(row: Row) -> str:
    """What an arm had cost when it first reached the target, from the least to the most of its runs."""
    found = row.matched
    if found is None or row.cost is None:
        return "–"
    if not found.reached:
        return f"never\n0 of {found.runs}"
    least, most = (wording.size(value, "FLOP") for value in (found.flops_low, found.flops_high))
    spread = "" if found.reached == 1 or least == most else f"\n[{least}, {most}]"
    counted = "" if found.runs == 1 else f"\n{found.reached} of {found.runs}"
    return f"{'≤ ' if found.first_look else ''}{wording.size(found.flops, 'FLOP')}{spread}{counted}"


def _share(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 10:
        return f"{value:.0f} times"
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2g} %"
