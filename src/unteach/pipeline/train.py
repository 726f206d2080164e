"""Train: the stage between preparing and measuring."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unteach.errors import ConfigError, Interrupted
from unteach.models.saving import save_model, without_bars
from unteach.pipeline.original import adapter_settings
from unteach.pipeline.prepare import Prepared
from unteach.results.report import Cost, Ending, Waypoint
from unteach.text.escape import inert_line
from unteach.training.curve import waypoints
from unteach.training.interrupt import StopOnInterrupt
from unteach.training.log_file import LogFile
from unteach.training.trainer import UnlearnTrainer


@dataclass(frozen=True)
class Trained:
    """The result of training: the model, with its adapter where it has one, why training ended, and the cost so far."""

    model: Any
    stop: Ending
    cost: Sequence[Cost]
    curve: Sequence[Waypoint]
    notes: Sequence[str]


def make_trainer(prepared: Prepared) -> UnlearnTrainer:
    """Make the trainer of a run, without running the model. Raises ConfigError for settings that cannot be."""
    config, original = prepared.config, prepared.original
    try:
        return UnlearnTrainer(
            original.model,
            prepared.arguments,
            prepared.data,
            processing_class=original.tokenizer,
            peft_config=adapter_settings(config, original.model),
            judge=prepared.evaluation.judges[0],
        )
    except (ValueError, RuntimeError, ImportError) as error:
        if not config.trainer:
            raise
        raise ConfigError(f"--set {', '.join(config.trainer)}: {inert_line(str(error), 200)}") from error


def train(
    trainer: UnlearnTrainer, prepared: Prepared, directory: Path, interruption: StopOnInterrupt, *, resume: bool
) -> Trained:
    """Train, and save the result in `directory`.

    Raises Interrupted after Ctrl-C, once a checkpoint is written, and TrainingError when the loss breaks down.
    """
    trainer.add_callback(LogFile(directory / "log.jsonl"))
    trainer.add_callback(interruption)
    with without_bars():
        trainer.train(resume_from_checkpoint=resume)
    if interruption.asked:
        step = trainer.state.global_step
        raise Interrupted(f"stopped at step {step}, checkpoint written; go on with --resume")
    saved = save_model(trainer.save_model, trainer.model, prepared.original.tokenizer, directory / "model")
    return Trained(
        trainer.model,
        _ending_of(trainer),
        [*prepared.cost, trainer.meter.cost(trainer.model, "unlearned", "training")],
        waypoints(trainer.curve, trainer.model, "unlearned", "training", prepared.config.seed, prepared.cost),
        [*trainer.notes[len(prepared.data.notes) :], *saved],
    )


def _ending_of(trainer: UnlearnTrainer) -> Ending:
    """Return why training ended: a rule ended it, or all steps were made."""
    if trainer.stop:
        return Ending(step=trainer.stop.step, rule=trainer.stop.rule, message=trainer.stop.message)
    step, points = trainer.state.global_step, trainer.curve.points
    message = f"all {step} steps were made"
    if trainer.rules and points:
        last = points[-1]
        message += (
            f"; the behaviour target had not been met: at step {last.step}, {last.bad} of {last.judged} replies to "
            f"validation prompts were bad and {last.broken:.1%} broken"
        )
    return Ending(step=step, rule="end of the schedule", message=message)
