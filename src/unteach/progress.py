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
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach.escape import inert_line
from unteach.stopping import Watch

Report = Callable[[int, int], None]

_live: list[Any] = []  # one stage at a time: two bars would write over each other

SHOWN = {
    "forget_ce": "forget", "break_off_ce": "break-off", "mismatch_ce": "mismatch", "template_ce": "template", "kl": "KL"
}  # fmt: skip
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

    def report(self, done: int, total: int, figures: str = "") -> None:
        """Say how far the stage is, unless something was said a short while ago."""
        if self._clock() - self._spoke >= SECONDS_BETWEEN_LINES:
            self._spoke = self._clock()
            self._say(f"{done}/{total}  {figures}".rstrip())

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
        TextColumn("{task.fields[figures]}", style="dim"),
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
        task = bar.add_task(description, total=None, figures="")

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


class StepBar(TrainerCallback):
    """Optimizer steps with the figures that matter: cross-entropies and KL in nats per token. A bar, or plain lines."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.bar: Progress | None = None
        self.lines: Lines | None = None
        self.task: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start on the main process."""
        if not state.is_world_process_zero:
            return
        self.bar = _bar()
        if self.bar is None:
            self.lines = Lines("unlearning", start=f"begins at step {state.global_step} of at most {state.max_steps}")
            _live.append(self.lines)
            return
        self.bar.start()
        _live.append(self.bar)
        self.task = self.bar.add_task("unlearning", total=state.max_steps, completed=state.global_step, figures="")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the step and its figures."""
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step, figures=self._figures())
        elif self.lines is not None:
            self.lines.report(state.global_step, state.max_steps, self._figures())

    def _figures(self) -> str:
        figures = self.watch.figures | self.watch.checked
        shown = [f"{label} {figures[name]:.2f}" for name, label in SHOWN.items() if name in figures]
        if "validation_bad_rate" in figures:
            shown.append(f"bad {figures['validation_bad_rate']:.0%}")
        return "  ".join(shown)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Come to an end."""
        self.close(f"done at step {state.global_step}")

    def close(self, how: str = "broken off") -> None:
        """Take the bar away or say how it ended, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            _live.remove(self.bar)
            self.bar = None
        if self.lines is not None:
            self.lines.end(how)
            _live.remove(self.lines)
            self.lines = None
