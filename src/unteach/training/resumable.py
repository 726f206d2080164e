"""A Trainer whose runs resume exactly: its checkpoints are complete or absent, and hold the memory of the rules."""

import math
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerState
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from unteach.errors import OutputError
from unteach.objectives.methods import Method
from unteach.results.cost import Meter
from unteach.training.checkpoints import (
    complete_step,
    last_complete,
    read_state,
    refuse_other_ranks,
    writing_checkpoint,
)
from unteach.training.curve import Curve
from unteach.training.sharded_trainer import ShardedTrainer
from unteach.training.shortcuts import Shortcuts
from unteach.training.stopping import Stop
from unteach.training.watch import Watch


class ResumableTrainer(ShardedTrainer):
    """Saves the state of the stopping rules, the meter and the curve with the weights, and restores it."""

    method: Method
    notes: list[str]
    watch: Watch
    meter: Meter
    curve: Curve
    shortcuts: Shortcuts

    @property
    def stop(self) -> Stop | None:
        """Why the run ended; None without stopping rules and before the end."""
        return self.watch.state.stop

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Train; a method with a direction first moves along it, unless the checkpoint has the weights after that."""
        if self.method.direction and not resume_from_checkpoint:
            from unteach.training.move import move  # no other run needs it

            move(self)
        if self.method.direction == "alone":
            return TrainOutput(self.state.global_step, math.nan, {})
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _resume(self, wanted: str | bool | None) -> Path | None:
        """Return the checkpoint to go on from, after restoring the state that it holds."""
        if not wanted:
            return None
        directory = Path(self.args.output_dir)
        checkpoint = last_complete(directory, self.args.world_size) if wanted is True else Path(str(wanted))
        if checkpoint is None:
            refuse_other_ranks(directory, self.args.world_size)
            return None
        if complete_step(checkpoint, self.args.world_size) is None:
            raise OutputError(f"{checkpoint}: not a complete checkpoint of such a run; name another or start again")
        state = read_state(checkpoint)
        self.watch.restore(state["stopping"])
        self.shortcuts.plain_rows = state["plain_rows"]
        self.meter.restore(state["meter"])
        self.curve.restore(state["curve"])
        if self.method.direction:
            from unteach.training.move import note_of

            self.notes += note_of(directory, self.args)
        return checkpoint

    def _load_ended(self, checkpoint: Path) -> TrainOutput:
        """Load a run that a rule had ended before it was killed: nothing is left to train."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        return TrainOutput(self.state.global_step, math.nan, {})

    def _go_back(self, step: int) -> None:
        """Load the weights of an earlier step; step 0 is the original."""
        self.state.best_model_checkpoint = str(Path(self.args.output_dir) / f"checkpoint-{step}")
        self._load_best_model()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save, our own state last; only then delete older checkpoints.

        A full disk leaves no partial checkpoint, and the error says which one is valid.
        """
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # the Trainer would delete too early
        try:
            with writing_checkpoint(self, self._memory) as folder:
                if self.args.stopping:
                    self.state.best_model_checkpoint = str(folder.with_name(f"checkpoint-{self.watch.state.good_step}"))
                super()._save_checkpoint(model, trial)
            if self.args.should_save:
                rotate_checkpoints(str(folder.parent), limit, self.state.best_model_checkpoint)
        finally:
            self.args.save_total_limit = limit

    def _memory(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the Trainer's own state."""
        return {
            "stopping": self.watch.memory(),
            "plain_rows": self.shortcuts.plain_rows,
            "meter": self.meter.state(),
            "curve": self.curve.state(),
        }
