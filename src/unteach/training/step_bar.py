"""The progress bar of training."""

from typing import Any

from rich.progress import Progress
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach.progress import Lines, live_stages, make_bar
from unteach.training.stopping import Watch

SHOWN = {
    "forget_ce": "forget",
    "rto_ce": "rto",
    "mismatch_ce": "mismatch",
    "template_ce": "template",
    "kl": "KL",
}


class StepBar(TrainerCallback):
    """Optimizer steps with the metrics that matter: cross-entropies and KL in nats per token. A bar, or plain lines."""

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
        self.bar = make_bar()
        if self.bar is None:
            self.lines = Lines("unlearning", start=f"begins at step {state.global_step} of at most {state.max_steps}")
            live_stages.append(self.lines)
            return
        self.bar.start()
        live_stages.append(self.bar)
        self.task = self.bar.add_task("unlearning", total=state.max_steps, completed=state.global_step, metrics="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell the step and its metrics."""
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step, metrics=self._metrics())
        elif self.lines is not None:
            self.lines.report(state.global_step, state.max_steps, self._metrics())

    def _metrics(self) -> str:
        metrics = self.watch.metrics | self.watch.checked
        shown = [f"{label} {metrics[name]:.2f}" for name, label in SHOWN.items() if name in metrics]
        if "validation_bad_rate" in metrics:
            shown.append(f"bad {metrics['validation_bad_rate']:.0%}")
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
            live_stages.remove(self.bar)
            self.bar = None
        if self.lines is not None:
            self.lines.end(how)
            live_stages.remove(self.lines)
            self.lines = None
