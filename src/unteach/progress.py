"""Progress: a bar where a person watches a terminal, plain lines in a log file or a pipe, nothing if switched off."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from unteach.text.escape import inert_line

Report = Callable[[int, int], None]

_live: list[Any] = []  # one stage at a time: two bars would write over each other

SECONDS_BETWEEN_LINES = 30.0


class Lines:
    """A stage told in plain lines on standard error: its start, how far it is now and then, its end.

    Only the first of several processes speaks. A log that can no longer be written is not worth a run.
    """

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic, start: str = "begins") -> None:
        self.stage = inert_line(stage, 200)
        self._clock = clock
        self._began = self._spoke = clock()
        self._say(start)

    def report(self, done: int, total: int, metrics: str = "") -> None:
        """Say how far the stage is, unless something was said a short while ago."""
        if self._clock() - self._spoke >= SECONDS_BETWEEN_LINES:
            self._spoke = self._clock()
            self._say(f"{done}/{total}  {metrics}".rstrip())

    def end(self, how: str) -> None:
        """Say that the stage is over, and how long it took."""
        self._say(f"{how} after {self._clock() - self._began:.1f} s")

    def _say(self, what: str) -> None:
        if os.environ.get("RANK", "0") == "0":
            with contextlib.suppress(OSError, ValueError):  # a full disk, a reader that has gone, a closed stream
                print(f"{self.stage} {what}", file=sys.stderr, flush=True)


def _bar() -> Progress | None:
    """Make a bar; None where no terminal is there to show it."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        return None
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[metrics]}", style="dim"),
    )
    return Progress(*columns, console=console, transient=True)


@contextmanager
def track(description: str, show: bool = True) -> Iterator[Report | None]:
    """Show how far the block is; yields a function of (done, total) to call, or None where nothing is shown.

    Nothing is shown inside another stage, as when the stopping rules let a slow judge decide.
    """
    if not show or _live:
        yield None
        return
    shown = _bar()
    if shown is None:
        lines = Lines(description)
        try:
            with _counted(lines):
                yield lines.report
        except BaseException:
            lines.end("broken off")
            raise
        lines.end("done")
        return
    with shown as bar, _counted(bar):
        task = bar.add_task(description, total=None, metrics="")

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report


@contextmanager
def _counted(stage: Any) -> Iterator[None]:
    _live.append(stage)
    try:
        yield
    finally:
        _live.remove(stage)
