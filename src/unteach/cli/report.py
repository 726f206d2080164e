"""The verb `unteach report`."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from unteach.cli.flags import plain
from unteach.text.escape import inert_line

Directory = Annotated[
    str, typer.Argument(help="Run directory, with its report.json.", metavar="DIR", show_default=False)
]
Open = Annotated[bool, plain("--open", "Open it in the browser.", "Options")]


def report_command(directory: Directory, open_: Open = False) -> None:
    """Write report.html anew from a run directory: report.json, log.jsonl and run.yaml are all it needs.

    [bold]Examples[/bold]
      unteach report ./out
      unteach report ./out --open

    The page is one file that needs no network. docs/report.md says how to read it.
    """
    from unteach.report.page import gaps, write_page
    from unteach.results.report import Report

    report = Report.read(directory)
    path = write_page(report, directory)
    print(page_lines(path))
    for gap in gaps(report, directory).values():
        print(f"Note: {gap}")
    if open_ and not _opened(path):
        print("No browser could be started here: open the address above in one.")


def page_lines(path: Path) -> str:
    """Where a page is: its path, and the address that a browser takes."""
    return f"Page: {inert_line(str(path))}\n      {path.resolve().as_uri()}"


def _opened(path: Path) -> bool:
    try:
        return webbrowser.open(path.resolve().as_uri())
    except (webbrowser.Error, OSError):
        return False
