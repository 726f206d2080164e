"""What a verb prints when it is done: the report, and where the model and the page are."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from unteach.text.escape import inert_line

if TYPE_CHECKING:
    from unteach.results.report import Report


def print_report(report: "Report", output: str, model: str = "model", samples: int = 4) -> None:
    """Print a report; with a run directory, also where its page is, and its model where `model` names one in it."""
    from unteach.report.table import show

    console = Console(highlight=False)
    show(report, console, samples=samples)
    if output:
        directory = Path(output)
        lines = [f"Model: {inert_line(str(directory / model))}"] if model else []
        lines.append(page_lines(directory / "report.html"))
        console.print("\n" + "\n".join(lines), markup=False, soft_wrap=True)


def page_lines(path: Path) -> str:
    """Return the path of a page and its address, each on one line, so that a terminal makes a link of it."""
    return f"Page: {inert_line(str(path))}\n      {path.resolve().as_uri()}"
