"""What a baseline is given to work with, and what it notes and spends."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unteach.baselines.config import BaselineConfig
from unteach.baselines.rows import BaselineRows
from unteach.data.encoded import Encoded
from unteach.data.prompt_format import PromptFormat
from unteach.judges.base import Judge
from unteach.mistakes.guide import guided_format
from unteach.models.reply import named_end
from unteach.pipeline.original import Original
from unteach.pipeline.train import Trained
from unteach.results.report import Cost, Ending, Waypoint
from unteach.training.behaviour import Behaviour
from unteach.training.validation import behaviour_of


@dataclass
class BaselineRun:
    """What a baseline is given: its settings and rows and the original in memory; and its notes and costs so far.

    `validation` are held-out negatives, as the arm is asked, whose replies are judged during training (`curve`): half
    A of the validation prompts, as in the curve of `unteach run`.
    Trainers may write in `directory`, where log.jsonl is too; it exists only once training begins.
    """

    config: BaselineConfig
    rows: BaselineRows
    original: Original
    max_length: int
    judge: Judge
    directory: Path
    notes: list[str] = field(default_factory=list)
    cost: list[Cost] = field(default_factory=list)
    validation: list[Encoded] = field(default_factory=list)
    curve: list[Waypoint] = field(default_factory=list)

    @property
    def arm(self) -> str:
        """The arm's name: the baseline's."""
        return self.config.baseline

    @property
    def normals_per_row(self) -> float:
        """How many normal rows go with each row of the baseline's own."""
        given = self.config.normals_per_row
        return 1.0 if given is None else given

    def behaviour(self, model: Any) -> Behaviour:
        """Ask a model the validation prompts and judge its replies."""
        return behaviour_of(model, self.original.form, self.validation, self.judge, self.config.max_new_tokens)

    def form_with(self, phrase: str) -> PromptFormat:
        """Return the original's prompt format with a phrase before every prompt."""
        form = self.original.form
        return guided_format(form.tokenizer, phrase, form.name, named_end(self.original.model), form.settings)

    def note_data(self, **counts: int) -> None:
        """Note how many rows of each kind the baseline needed; zeros are noted too."""
        listed = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items())
        self.notes.append(f"data that {self.arm} needed: {listed}")

    def trained(self, trainer: Any, message: str) -> Trained:
        """Return what came out of the last stage; `message` says what it was trained on."""
        model = trainer.model
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")  # the copy of an adapter that TRL made for its reference
        stop = Ending(step=trainer.state.global_step, rule="end of the schedule", message=message)
        return Trained(model, stop, self.cost, self.curve, self.notes)
