"""The report in the terminal: headline, metrics side by side, samples, cost."""

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from unteach.report import opinions, study, wording
from unteach.report.wording import headline
from unteach.results.report import Report, Sample
from unteach.text.escape import inert_line, terminal_text

__all__ = ["headline", "rendered", "show"]

_STYLES = {"better": "bold green", "worse": "bold red", "moved": "", "unclear": ""}
_VERDICT_STYLES = {"good": "green", "bad": "red", "unknown": "yellow"}
_WIDE = (26, 37)  # label and cell: "100.0 % ▲ [98.1, 100.0] n=200, 2 unknown" mostly on one line
_NARROW = (18, 19)  # the same on two or three lines, so that three arms fit into 80 columns
_OPINION = (30, 23)  # label and cell of the second opinions
_SAMPLE_LINES = 3


def show(report: Report, console: Console | None = None, samples: int = 4) -> None:
    """Print the report; nothing that a model or a data set wrote can command the terminal."""
    console = console or Console(highlight=False)
    console.print(rendered(report, console.width, samples), highlight=False)


def rendered(report: Report, width: int, samples: int = 4) -> RenderableType:
    """The whole report for a terminal of `width` columns."""
    parts: list[RenderableType] = [Text(study.headline(report), style="bold"), _subject(report), Text()]
    parts += [study.rendered_grids(report)] if study.is_study(report) else _metrics(report, width)
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
    return Text(inert_line(line, 500), style="dim")


def _metrics(report: Report, width: int) -> list[RenderableType]:
    """One table, or several where the arms do not fit side by side."""
    arms = [arm for arm in report.arms() if any(metric.arm == arm for metric in report.measurements)]
    if not arms:
        return []
    one_line = width >= _WIDE[0] + (_WIDE[1] + 1) * len(arms)
    label_width, cell_width = _WIDE if one_line else _NARROW
    room = max(1, (width - label_width) // (cell_width + 1))
    parts: list[RenderableType] = []
    for start in range(0, len(arms), room):
        group = arms[start : start + room]
        parts.append(_arm_titles(report, group, one_line))
        for split in wording.splits(report):
            parts += [Text(wording.label(split, wording.SPLITS), style="bold cyan")]
            parts += [_split_table(report, split, group, one_line), Text()]
    legend = Text("[ ] 95 % interval, n cases; Δ difference to before, case by case; ", style="dim")
    legend.append("better", style="green").append(" or ").append("worse", style="red")
    legend.append(" ▲▼ where Δ clearly is not 0, or without Δ where the intervals do not touch")
    return [*parts, legend]


def _grid(arms: list[str], one_line: bool) -> Table:
    label_width, cell_width = _WIDE if one_line else _NARROW
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=label_width, overflow="fold")
    for _ in arms:
        table.add_column(width=cell_width, overflow="fold")
    return table


def _arm_titles(report: Report, arms: list[str], one_line: bool) -> Table:
    table = _grid(arms, one_line)
    table.add_row("", *(Text(wording.arm_label(report, arm, 30), style="bold underline") for arm in arms))
    return table


def _split_table(report: Report, split: str, arms: list[str], one_line: bool) -> Table:
    table = _grid(arms, one_line)
    for name in wording.metric_names(report, split):
        cells = [_cell(report, name, split, arm, one_line) for arm in arms]
        table.add_row(Text(wording.metric_label(report, name)), *cells)
    return table


def _cell(report: Report, name: str, split: str, arm: str, one_line: bool) -> Text:
    metric = report.measured(name, split, arm)
    if metric is None:
        return Text("not measured", style="dim")
    before = report.measured(name, split, "original")
    change = wording.change(before, metric)
    text = Text(wording.number(metric.value, metric.unit), style=_STYLES[change])
    if arrow := wording.arrow(before, metric):
        text.append(f" {arrow}")
    details = " ".join(part for part in (wording.interval(metric), wording.counted(metric)) if part)
    text.append(" " if one_line else "\n").append(details, style="not bold dim default")
    if shift := wording.difference(metric):
        text.append(f"\n{_fitted(shift, one_line)}", style="not bold dim default")
    return text


def _fitted(difference: str, one_line: bool) -> str:
    """The difference to the original for a cell; in a narrow one it takes two lines where it must."""
    if one_line:
        return f"Δ {difference}"
    short = f"Δ {difference.replace(' points', '')}"
    return short if len(short) <= _NARROW[1] else short.replace(" [", "\n[")


def _opinions(report: Report, width: int) -> list[RenderableType]:
    """How far the judges can be trusted and, where there are several, what each says."""
    parts: list[RenderableType] = [Text(line, style="dim") for line in opinions.quality_lines(report)]
    if not opinions.seconds(report):
        return [*parts, Text()] if parts else []
    parts = [Rule("second opinions", style="dim"), *parts, Text(opinions.EXPLAINED, style="dim")]
    label_width, cell_width = _OPINION
    room = max(1, (width - label_width) // (cell_width + 1))
    for start in range(0, len(report.judges), room):
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=label_width, overflow="fold")
        group = report.judges[start : start + room]
        for _ in group:
            table.add_column(width=cell_width, overflow="fold")
        table.add_row("", *(Text(inert_line(judge.name, 60), style="bold underline") for judge in group))
        for label, cells in opinions.rate_rows(report):
            table.add_row(Text(label), *(Text(cell) for cell in cells[start : start + room]))
        parts += [table, Text()]
    parts += [Text(f"Agreement of {line}") for line in opinions.agreement_lines(report)]
    for first, second, rows in opinions.confusions(report):
        counts = Table.grid(padding=(0, 2, 0, 0))
        counts.add_row(Text(f"{first} ↓ {second} →", style="dim"), *opinions.VERDICTS)
        for verdict, listed in rows:
            counts.add_row(verdict, *(Text(f"{count:,}", justify="right") for count in listed))
        parts += [counts, Text()]
    return [*parts, Text(opinions.KAPPA, style="dim"), Text()]


def _sample(report: Report, sample: Sample, width: int) -> RenderableType:
    limit = max(60, (width - 22) * _SAMPLE_LINES)
    title = Text(f"{wording.label(sample.split, wording.SPLITS)}", style="cyan")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=18, overflow="fold")
    grid.add_column(overflow="fold")
    grid.add_row(Text("prompt", style="bold"), Text(inert_line(sample.prompt, limit)))
    for arm in report.arms():
        if arm not in sample.replies:
            continue
        verdict = sample.verdicts.get(arm)
        reply = Text(inert_line(sample.replies[arm], limit) or "(blank)")
        if verdict:
            reply.append(f"  [{verdict}]", style=_VERDICT_STYLES[verdict])
        grid.add_row(Text(wording.arm_label(report, arm, 30)), reply)
    return Group(title, Padding(grid, (0, 0, 1, 2)))


def _cost(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    for title in ("time", "tokens", "compute", "peak memory"):
        table.add_column(title, justify="right")
    for cost in report.cost:
        table.add_row(
            Text(inert_line(f"{cost.stage}, {cost.arm}", 60)),
            wording.seconds(cost.wall_seconds),
            "–" if cost.tokens is None else f"{cost.tokens:,}",
            wording.size(cost.flops, "FLOP"),
            wording.size(cost.peak_bytes),
        )
    return table
