"""The metrics of training steps, averaged for the log and for the stopping rules."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor


class StepMetrics:
    """Adds up the metrics of batches: for one optimizer step, and for all steps since the last log line.

    `agree` averages a number over ranks; `ranks` is their number.
    """

    def __init__(self, agree: Callable[[float], float], batches_per_step: int, ranks: int) -> None:
        self._agree, self._batches_per_step, self._ranks = agree, batches_per_step, ranks
        self._in_step: dict[str, float] = {}
        self._start_line()

    def _start_line(self) -> None:
        self._sums: dict[str, float] = {}
        self._batches, self._tokens, self._seconds = 0, 0, 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds of the block as training."""
        began = time.monotonic()
        yield
        self._seconds += time.monotonic() - began

    def add(self, metrics: dict[str, Tensor], tokens: int) -> dict[str, float] | None:
        """Add a batch; after the last batch of an optimizer step, return the means of that step."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
            self._in_step[name] = self._in_step.get(name, 0.0) + float(value)
        self._batches += 1
        self._tokens += tokens
        if self._batches % self._batches_per_step:
            return None
        step = {name: self._agree(total / self._batches_per_step) for name, total in self._in_step.items()}
        self._in_step = {}
        return step

    def line(self) -> dict[str, float]:
        """Return the means since the last line, and the tokens per second; empty where there was no batch."""
        if not self._batches:
            return {}
        means = {name: self._agree(total / self._batches) for name, total in self._sums.items()}
        means["tokens_per_second"] = self._tokens * self._ranks / max(1e-9, self._seconds)
        self._start_line()
        return means
