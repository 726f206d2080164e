"""A table as text, and how it looks in a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Grid:
    """A table as text. A cell's first line is its metric, the lines after it say how sure that is.

    A metric that ends in a star is shown bold. Who makes a grid makes its text inert.
    """

    header: list[str]
    rows: list[list[str]]


def rendered(grids: Sequence[Grid]) -> RenderableType:
    """Return the tables for a terminal, each with an empty line after it."""
    parts: list[RenderableType] = []
    for grid in grids:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold underline")
        for place, title in enumerate(grid.header):
            left = place == 0
            heading = Text(title, justify="left" if left else "right")
            table.add_column(heading, justify="left" if left else "right", overflow="fold", ratio=3 if left else 2)
        for row in grid.rows:
            table.add_row(Text(row[0], style="dim" if row[0].endswith("reminder") else ""), *map(_cell_text, row[1:]))
        parts += [table, Text()]
    return Group(*parts)


def _cell_text(cell: str) -> Text:
    metric, line, rest = cell.partition("\n")
    text = Text(metric.removesuffix("*"), style="bold" if metric.endswith("*") else "")
    return text.append(line + rest, style="not bold dim")
