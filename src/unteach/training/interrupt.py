"""A signal during training: finish the step, write a checkpoint, then stop."""

from contextlib import ExitStack
from types import TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach import signals
from unteach.models.ranks import any_rank


class StopOnInterrupt(TrainerCallback):
    """A context in which the first Ctrl-C or SIGTERM saves and stops training after the current step.

    A second one ends at once (`unteach.signals`). Outside training, and outside the main thread, signals work as usual.
    """

    def __init__(self) -> None:
        self.asked = False
        self._training = False
        self._signals = ExitStack()

    def __enter__(self) -> "StopOnInterrupt":
        self._signals.enter_context(signals.handled())
        self._signals.enter_context(signals.taking(self._take))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signals.close()

    def _take(self, number: int) -> bool:
        self.asked = self.asked or self._training
        return self._training

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Handle signals at the end of a step from now on."""
        self._training = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop if asked to, on all ranks if any was."""
        if any_rank(self.asked):  # a signal that comes meanwhile is of the next step
            self.asked = True
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let a signal end the program again."""
        self._training = False
