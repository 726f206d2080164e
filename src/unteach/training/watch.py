"""Watch: the Trainer callback that measures for the stopping rules and does what they say."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach.progress import Lines
from unteach.training.behaviour import Behaviour
from unteach.training.config import UnlearnConfig
from unteach.training.data import TrainingData
from unteach.training.stopping import Measured, Seen, advance, due, restored, start, state_of
from unteach.training.target import Limits, hindrance

Measures = Mapping[str, Callable[[], Any]]


def limits_of(args: UnlearnConfig, bound: float, data: TrainingData) -> Limits:
    """Return what decides in a run with these settings and rows; `bound` is the forget bound, nats per token."""
    values = {field.name: getattr(args, field.name) for field in fields(Limits) if hasattr(args, field.name)}
    reads = {"reads_kl": bool(data.validation_normals), "reads_replies": bool(data.validation_negatives)}
    return Limits(**(values | reads | {"forget_bound": bound}))


class Watch(TrainerCallback):
    """Feeds `unteach.training.stopping` with what was measured, saves good steps and ends the run.

    `measures` has a function for each of `kl`, `a` and `b` that can be measured; without it, nothing ends the run.
    `metrics` are those of the last step, and `validated` those of the last validation that no log line has had yet.
    """

    def __init__(self, limits: Limits, measures: Measures | None = None) -> None:
        self.limits, self.measures = limits, measures
        self.state = start(limits)
        self.metrics: dict[str, float] = {}
        self.validated: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the original, unless that was done or this run goes on from a checkpoint."""
        self.begin()
        for note in self.notes() if args.progress else ():
            Lines("note:", start=note)

    def begin(self) -> None:
        """Measure the original, once."""
        if self.measures is not None and self.state.phase == "measuring":
            self._measure(0)
            self.validated = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure what is due; save, end the run or let it go on."""
        if self.measures is None:
            return
        step, jumped = state.global_step, self.state.jumped_at
        last = control.should_training_stop
        self.state = advance(self.limits, self.state, Seen(step, self.metrics.get("forget_ce"), last=last))
        measured = self._measure(step, last)
        stop = self.state.stop
        if stop is not None:
            control.should_training_stop = True
        kept = stop is not None and stop.went_back_to is None
        good = measured and self.state.good_step == step
        if kept or good or self.state.jumped_at != jumped:
            control.should_save = True

    def notes(self) -> list[str]:
        """Return a note where the behaviour target could not end this run from its beginning."""
        if self.measures is None or self.state.phase == "measuring" or not self.limits.reads_replies:
            return []
        why = hindrance(self.limits, self.state.before_a, self.state.before_b)
        return [f"the behaviour target cannot end this run: {why}"] if why else []

    def memory(self) -> dict[str, Any]:
        """Return what must survive a kill, as JSON."""
        return {"state": state_of(self.state), "metrics": self.metrics, "validated": self.validated}

    def restore(self, memory: dict[str, Any]) -> None:
        """Go on from what `memory` returned."""
        self.state = restored(memory["state"])
        self.metrics, self.validated = memory["metrics"], memory["validated"]

    def _measure(self, step: int, last: bool = False) -> bool:
        """Measure all that is due after `step`; return whether anything was."""
        assert self.measures is not None
        before = self.state.phase == "measuring"
        measured = False
        while wanted := due(self.limits, self.state, step, last):
            found = {name: self.measures[name]() for name in wanted}
            self.state = advance(self.limits, self.state, Seen(step, last=last, **found))
            self.validated = (self.validated if measured else {}) | logged(found)
            measured = True
        if before and not measured:
            self.state = advance(self.limits, self.state, Seen(step))
        return measured


def logged(found: Mapping[Measured, Any]) -> dict[str, float]:
    """Return measurements by their names in the log."""
    values: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, Behaviour):
            part = "validation" if name == "a" else "confirmation"
            values |= {f"{part}_bad_rate": value.bad_share, f"{part}_broken_rate": value.broken_share}
        else:
            values["validation_kl"] = value
    return values
