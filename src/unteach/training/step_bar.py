"""The progress bar of training."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach.progress import Bar, Lines, begin_stage, end_stage
from unteach.training.watch import Watch

SHOWN = {
    "forget_ce": "forget",
    "rto_ce": "rto",
    "mismatch_ce": "mismatch",
    "template_ce": "template",
    "kl": "KL",
}


class StepBar(TrainerCallback):
    """Shows optimizer steps, on the main process, with the latest cross-entropies and KL in nats per token."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.stage: Bar | Lines | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the stage."""
        if state.is_world_process_zero:
            self.stage = begin_stage("unlearning", f"begins at step {state.global_step} of at most {state.max_steps}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the step and its metrics."""
        if self.stage:
            metrics = self.watch.metrics | self.watch.validated
            shown = [f"{label} {metrics[name]:.2f}" for name, label in SHOWN.items() if name in metrics]
            if "validation_bad_rate" in metrics:
                shown.append(f"bad {metrics['validation_bad_rate']:.0%}")
            self.stage.report(state.global_step, state.max_steps, "  ".join(shown))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the stage."""
        self.close(f"done at step {state.global_step}")

    def close(self, how: str = "broken off") -> None:
        """End the stage, also after an error."""
        if self.stage:
            end_stage(self.stage, how)
            self.stage = None
