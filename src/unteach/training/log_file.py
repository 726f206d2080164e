"""log.jsonl: one line for each log line of the Trainer."""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach.disk.files import write_whole, writing


class LogFile(TrainerCallback):
    """Writes each log line of the Trainer to log.jsonl; a resumed run removes the lines after its checkpoint.

    A run of several trainings names the `stage` in each line, and keeps the lines of earlier stages.
    """

    def __init__(self, path: Path, stage: str | None = None) -> None:
        self.path = path
        self.stage = {"stage": stage} if stage else {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the lines up to the checkpoint that the run goes on from."""
        if not state.is_world_process_zero or self.stage:
            return
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step_of(line) <= state.global_step]
        write_whole(self.path, "".join(line + "\n" for line in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append a line; metrics that are not finite are written as null."""
        if state.is_world_process_zero and logs:
            finite = {k: v if abs(v) < float("inf") else None for k, v in logs.items() if isinstance(v, int | float)}
            line = json.dumps({**self.stage, "step": state.global_step, **finite}) + "\n"
            if "scale" in logs and self.path.exists() and line in self.path.read_text().splitlines(keepends=True):
                return  # a run that was killed along its direction tells all looks again
            with writing(self.path), self.path.open("a") as file:
                file.write(line)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
