"""The report in the terminal: headline, metrics side by side, samples, cost."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from unteach.report import opinions, study, wording
from unteach.report.cells import Cell, metric_rows
from unteach.report.grid import cost_table, terminal_tables
from unteach.report.headline import headline
from unteach.results.report import Report, Sample
from unteach.text.escape import inert_line, terminal_text

_STYLES = {"better": "bold green", "worse": "bold red", "moved": "", "unclear": ""}
_VERDICT_STYLES = {"good": "green", "bad": "red", "unknown": "yellow"}
_WIDE = (26, 37)  # label and cell: "100.0 % ▲ [98.1, 100.0] n=200, 2 unknown" mostly on one line
_NARROW = (18, 19)  # the same on two or three lines, so that three arms fit into 80 columns
_OPINION = (30, 23)  # label and cell of the second opinions
_SAMPLE_LINES = 3


def show(report: Report, console: Console | None = None, samples: int = 4) -> None:
    """Print the report; nothing that a model or a data set wrote can command the terminal."""
    console = console or Console(highlight=False)
    console.print(_whole(report, console.width, samples), highlight=False)


def _whole(report: Report, width: int, samples: int) -> RenderableType:
    parts: list[RenderableType] = [Text(headline(report), style="bold"), _subject(report), Text()]
    parts += [terminal_tables(study.grids(report))] if report.is_study else _metrics(report, width)
    parts += _opinions(report, width)
    if report.samples:
        parts.append(Rule("samples", style="dim"))
        parts += [_sample(report, sample, width) for sample in wording.handful(report, samples)]
    if report.cost:
        parts += [Rule("cost", style="dim"), _cost(report)]
    parts += [terminal_text(f"Note: {note}", "yellow", 400) for note in report.notes]
    return Group(*parts)


def _subject(report: Report) -> Text:
    line = f"model {report.model} · method {report.method}"
    if report.judge:
        line += f" · judge {report.judge}"
    if ended := wording.how_it_ended(report):
        line += f" · {ended[0].lower()}{ended[1:].rstrip('.')}"
    return Text(inert_line(line, 1000), style="dim")


def _metrics(report: Report, width: int) -> list[RenderableType]:
    """Return one table a split, or several where the arms do not fit side by side."""
    arms = report.measured_arms()
    if not arms:
        return []
    one_line = width >= _WIDE[0] + (_WIDE[1] + 1) * len(arms)
    widths = _WIDE if one_line else _NARROW
    parts: list[RenderableType] = []
    for group in (arms[part] for part in _side_by_side(len(arms), widths, width)):
        titles = wording.arm_labels(report, group, 30)
        parts.append(_fixed_table(widths, [["", *(Text(title, style="bold underline") for title in titles)]]))
        for title, rows in metric_rows(report, group):
            shown = [[Text(name), *(_cell(cell, one_line) for cell in cells)] for name, cells in rows]
            parts += [Text(title, style="bold cyan"), _fixed_table(widths, shown), Text()]
    legend = Text("[ ] 95 % interval, n cases; Δ difference to the original, case by case; ", style="dim")
    legend.append("better", style="green").append(" or ").append("worse", style="red")
    legend.append(" ▲▼ where Δ clearly is not 0, or without Δ where the intervals do not touch")
    return [*parts, legend]


def _side_by_side(count: int, widths: tuple[int, int], width: int) -> list[slice]:
    """Part so many columns into groups that fit beside a label."""
    room = max(1, (width - widths[0]) // (widths[1] + 1))
    return [slice(start, start + room) for start in range(0, count, room)]


def _fixed_table(widths: tuple[int, int], rows: Sequence[Sequence[RenderableType]]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for place in range(len(rows[0]) if rows else 0):
        table.add_column(width=widths[min(place, 1)], overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _cell(cell: Cell | None, one_line: bool) -> Text:
    if cell is None:
        return Text("not measured", style="dim")
    text = Text(cell.value, style=_STYLES[cell.change])
    if cell.arrow:
        text.append(f" {cell.arrow}")
    text.append(" " if one_line else "\n").append(cell.detail, style="not bold dim default")
    if cell.difference:
        text.append(f"\n{_fitted(cell.difference, one_line)}", style="not bold dim default")
    return text


def _fitted(difference: str, one_line: bool) -> str:
    """Return the difference to the original for a cell; in a narrow cell it takes two lines where it must."""
    if one_line:
        return f"Δ {difference}"
    short = f"Δ {difference.replace(' points', '')}"
    return short if len(short) <= _NARROW[1] else short.replace(" [", "\n[")


def _opinions(report: Report, width: int) -> list[RenderableType]:
    """Say how far the judges can be trusted and, where there are several, what each says."""
    parts: list[RenderableType] = [Text(line, style="dim") for line in opinions.quality_lines(report)]
    if not opinions.has_second_opinions(report):
        return [*parts, Text()] if parts else []
    parts = [Rule("second opinions", style="dim"), *parts, Text(opinions.EXPLAINED, style="dim")]
    rates = opinions.rates_table(report)
    for part in _side_by_side(len(report.judges), _OPINION, width):
        titles = [Text(name, style="bold underline") for name in rates.header[1:][part]]
        rows = [[Text(label), *map(Text, cells[part])] for label, *cells in rates.rows]
        parts += [_fixed_table(_OPINION, [["", *titles], *rows]), Text()]
    parts += [Text(f"Agreement of {line}") for line in opinions.agreement_lines(report)]
    for grid in opinions.confusion_tables(report):
        counts = Table.grid(padding=(0, 2, 0, 0))
        counts.add_row(Text(grid.header[0], style="dim"), *grid.header[1:])
        for verdict, *listed in grid.rows:
            counts.add_row(verdict, *(Text(f"{int(count):,}", justify="right") for count in listed))
        parts += [counts, Text()]
    return [*parts, Text(opinions.KAPPA, style="dim"), Text()]


def _sample(report: Report, sample: Sample, width: int) -> RenderableType:
    limit = max(60, (width - 22) * _SAMPLE_LINES)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=18, overflow="fold")
    grid.add_column(overflow="fold")
    grid.add_row(Text("prompt", style="bold"), Text(inert_line(sample.prompt, limit)))
    for arm in report.arms():
        if arm not in sample.replies:
            continue
        reply = Text(inert_line(sample.replies[arm], limit) or wording.nothing(sample, arm))
        if note := wording.cut_note(sample, arm):
            reply.append(f"  ({note})", style="dim")
        if verdict := sample.verdicts.get(arm):
            reply.append(f"  [{verdict}]", style=_VERDICT_STYLES[verdict])
        grid.add_row(Text(wording.arm_label(report, arm, 30)), reply)
    return Group(Text(wording.label(sample.split, wording.SPLITS), style="cyan"), Padding(grid, (0, 0, 1, 2)))


def _cost(report: Report) -> Table:
    grid = cost_table(report)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(grid.header):
        table.add_column(title, justify="right" if place else "left")
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table
