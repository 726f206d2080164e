"""Progress of slow stages: a bar on a terminal, plain lines in a log file or a pipe, nothing where switched off."""

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

OnProgress = Callable[[int, int], None]
"""Called with what is done and how much there is in all."""

live_stages: list[Any] = []
"""The stages that are shown now; there is one at a time, since two bars would write over each other."""

SECONDS_BETWEEN_LINES = 30.0
CROWDED = 1.5
"""The load per core from which others must be computing too: a process of ours brings it to 1, or a little more."""


class Lines:
    """A stage as plain lines on standard error: its start, its progress now and then, and its end.

    Only the first of several processes prints. A log that can no longer be written does not end the run.
    """

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic, start: str = "begins") -> None:
        self.stage = inert_line(stage, 200)
        self._clock = clock
        self._began = self._printed = clock()
        self._first: tuple[int, float] | None = None
        self._print(start)

    def report(self, done: int, total: int, metrics: str = "") -> None:
        """Print how far the stage is and how long it still takes, unless a line was printed a short while ago."""
        now = self._clock()
        self._first = self._first or (done, now)
        if now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            said = [f"{done}/{total}", metrics, self._left(done, total, now), shared_machine()]
            self._print("  ".join(part for part in said if part))

    def _left(self, done: int, total: int, now: float) -> str:
        """Return how long the stage still takes at its pace since the first report; nothing before there is a pace."""
        assert self._first is not None
        begun, since = self._first
        if done <= begun or done >= total:
            return ""
        left = (now - since) * (total - done) / (done - begun)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"

    def end(self, how: str) -> None:
        """Print how the stage ended and how long it took."""
        self._print(f"{how} after {self._clock() - self._began:.1f} s")

    def _print(self, what: str) -> None:
        if os.environ.get("RANK", "0") == "0":
            with contextlib.suppress(OSError, ValueError):  # a full disk, a reader that has gone, a closed stream
                print(f"{self.stage} {what}", file=sys.stderr, flush=True)


class Bar:
    """A stage as a bar on a terminal, with the methods of `Lines`."""

    def __init__(self, stage: str, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task(stage, total=None, metrics="")
        bar.start()

    def report(self, done: int, total: int, metrics: str = "") -> None:
        """Show how far the stage is."""
        said = "  ".join(part for part in (metrics, shared_machine()) if part)
        self._bar.update(self._task, completed=done, total=total, metrics=said)

    def end(self, how: str) -> None:
        """Take the bar away."""
        self._bar.stop()


def shared_machine() -> str:
    """Say that others compute on this machine's cores too, which slows a stage down; empty text where they do not."""
    try:
        load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    except (OSError, AttributeError):
        return ""
    return f"(shared machine: load {load:.1f} on {cores} cores)" if load >= CROWDED * cores else ""


def make_bar() -> Progress | None:
    """Make a progress bar on standard error; None where that is no terminal."""
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


def begin_stage(stage: str, start: str = "begins") -> Bar | Lines:
    """Show a stage, as a bar on a terminal and else as lines, until `end_stage`."""
    bar = make_bar()
    shown = Lines(stage, start=start) if bar is None else Bar(stage, bar)
    live_stages.append(shown)
    return shown


def end_stage(shown: Bar | Lines, how: str) -> None:
    """End a stage that `begin_stage` returned."""
    shown.end(how)
    live_stages.remove(shown)


def say(line: str) -> None:
    """Print a line between stages, as a stage without a bar does."""
    if os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(OSError, ValueError):
            print(inert_line(line, 2000), file=sys.stderr, flush=True)


@contextmanager
def track(description: str, show: bool = True) -> Iterator[OnProgress | None]:
    """Show how far a block is; yields a function of (done, total) to call, or None where nothing is shown.

    Nothing is shown inside another stage, for example where a slow judge is asked during training.
    """
    if not show or live_stages:
        yield None
        return
    shown, how = begin_stage(description), "broken off"
    try:
        yield shown.report
        how = "done"
    finally:
        end_stage(shown, how)
