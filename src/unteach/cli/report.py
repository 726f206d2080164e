"""The verb `unteach report`."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from unteach.cli.flags import switch
from unteach.cli.outcome import page_lines

Directory = Annotated[
    str, typer.Argument(help="Run directory, with its report.json.", metavar="DIR", show_default=False)
]
Open = Annotated[bool, switch("--open", "Open it in the browser.", "Options")]


def report_command(directory: Directory, open_: Open = False) -> None:
    """Write report.html anew from the report.json, log.jsonl and run.yaml of a run directory.

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
    if open_ and not _open_in_browser(path):
        print("No browser could be started here: open the address above in one.")


def _open_in_browser(path: Path) -> bool:
    """Return whether a browser could be started."""
    try:
        return webbrowser.open(path.resolve().as_uri())
    except (webbrowser.Error, OSError):
        return False
