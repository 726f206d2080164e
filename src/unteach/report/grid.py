"""Tables as text, the same for the terminal, Markdown and the pages."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from unteach.report import wording
from unteach.results.report import Report
from unteach.text.escape import inert_line, markdown_line

_LONGEST = 300  # characters of a name or value that others chose


@dataclass(frozen=True)
class Grid:
    """A table as text, which its maker has made inert.

    The first line of a cell is its value and further lines say how sure the value is; a value that ends in a star is
    shown bold. `numbers` are the columns that a page aligns to the right.
    """

    header: list[str]
    rows: list[list[str]]
    numbers: tuple[int, ...] = ()


def terminal_tables(grids: Sequence[Grid]) -> RenderableType:
    """Return the tables for a terminal, each followed by an empty line."""
    parts: list[RenderableType] = []
    for grid in grids:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold underline")
        table.add_column(Text(grid.header[0]), overflow="fold", ratio=3)
        for title in grid.header[1:]:
            table.add_column(Text(title, justify="right"), justify="right", overflow="fold", ratio=2)
        for first, *rest in grid.rows:
            table.add_row(Text(first, style="dim" if first.endswith("reminder") else ""), *map(_terminal_cell, rest))
        parts += [table, Text()]
    return Group(*parts)


def _terminal_cell(cell: str) -> Text:
    value, line, rest = cell.partition("\n")
    text = Text(value.removesuffix("*"), style="bold" if value.endswith("*") else "")
    return text.append(line + rest, style="not bold dim")


def markdown_table(grid: Grid) -> str:
    """Return the table as Markdown, each cell on one line; an empty string for a table without rows."""
    if not grid.rows:
        return ""
    title, *lines = [[markdown_line(cell.replace("\n", " ")) for cell in row] for row in (grid.header, *grid.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (title, ["---"] * len(title), *lines))


def cost_table(report: Report, joined: bool = True) -> Grid:
    """Return what each stage took; `joined` puts stage and arm into one column."""
    energy = any(cost.energy_joules is not None for cost in report.cost)
    header = ["stage", "arm", "time", "tokens", "compute", *(["energy"] if energy else []), "peak memory"]
    rows = [
        [
            inert_line(cost.stage, 60),
            inert_line(cost.arm, 60),
            wording.seconds(cost.wall_seconds),
            "–" if cost.tokens is None else f"{cost.tokens:,}",
            wording.size(cost.flops, "FLOP"),
            *([wording.size(cost.energy_joules, "J")] if energy else []),
            wording.size(cost.peak_bytes),
        ]
        for cost in report.cost
    ]
    if joined:
        header.remove("arm")
        rows = [[f"{stage}, {arm}", *rest] for stage, arm, *rest in rows]
    return Grid(header, rows, tuple(range(1 if joined else 2, len(header))))


def data_table(report: Report) -> Grid:
    """Return the sets of rows that the run used."""
    rows = [
        [
            inert_line(source.name, _LONGEST),
            inert_line(source.source, _LONGEST),
            f"{source.rows:,}",
            inert_line(source.fingerprint, _LONGEST),
        ]
        for source in report.data
    ]
    return Grid(["set", "source", "rows", "fingerprint"], rows, (2,))


def halves_table(report: Report) -> Grid:
    """Return how the halves of the validation prompts were replied to, before training and at its end."""
    titles = ["half", "step", "bad", "interval", "level", "verdicts", "broken"]
    rows = []
    for found in report.stop.halves if report.stop else []:
        half = found.half if found.look is None else f"{found.half}, look {found.look}"
        when = "0 (original)" if found.step == 0 else f"{found.step:,}"
        shares = [wording.number(found.value, "fraction"), wording.interval(found)]
        sure = [f"{100 * found.level:g} %", f"{found.n} of {found.n + found.unknown}"]
        rows.append([half, when, *shares, *sure, wording.number(found.broken, "fraction")])
    return Grid(titles, rows, (1, 2, 3, 4, 5, 6))


def environment_table(report: Report) -> Grid:
    """Return the model and what the run ran on."""
    rows = [["model", inert_line(report.model, _LONGEST)]]
    rows += [[inert_line(key, _LONGEST), inert_line(str(value), _LONGEST)] for key, value in report.environment.items()]
    return Grid(["environment", "version or value"], rows)
