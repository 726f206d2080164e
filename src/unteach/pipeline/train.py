"""Train: the stage between preparing and measuring."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unteach.errors import ConfigError, Interrupted
from unteach.models.saving import save_model, saved_quietly
from unteach.pipeline.original import adapter_settings
from unteach.pipeline.prepare import Prepared
from unteach.pipeline.sharding import by_deepspeed
from unteach.pipeline.strength import Weights, apply_strength
from unteach.results.report import Cost, Ending, HalfBehaviour, Waypoint
from unteach.results.strength import Strength
from unteach.stats import wilson
from unteach.text.escape import inert_line
from unteach.training.behaviour import Behaviour
from unteach.training.curve import waypoints
from unteach.training.interrupt import StopOnInterrupt
from unteach.training.log_file import LogFile
from unteach.training.stopping import State
from unteach.training.trainer import UnlearnTrainer


@dataclass(frozen=True)
class Trained:
    """The result of training: the model, with its adapter where it has one, why training ended, and the cost so far."""

    model: Any
    stop: Ending
    cost: Sequence[Cost]
    curve: Sequence[Waypoint]
    notes: Sequence[str]
    strength: Strength | None = None


def make_trainer(prepared: Prepared) -> UnlearnTrainer:
    """Make the trainer of a run, without running the model. Raises ConfigError for settings that cannot be."""
    config, original = prepared.config, prepared.original
    try:
        trainer = UnlearnTrainer(
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
    ours = by_deepspeed(config) and "deepspeed" not in config.trainer
    if trainer.args.fsdp or trainer.is_fsdp_enabled or (trainer.is_deepspeed_enabled and not ours):
        fix = "to spread a model over the ranks, give --shard fsdp2, zero2 or zero3"
        raise ConfigError(f"settings of your own for FSDP and DeepSpeed cannot be used (docs/many-gpus.md); {fix}")
    return trainer


def train(
    trainer: UnlearnTrainer, prepared: Prepared, directory: Path, interruption: StopOnInterrupt, *, resume: bool
) -> Trained:
    """Train, apply the update as strongly as it should be, and save the result in `directory`.

    Raises Interrupted after Ctrl-C, once a checkpoint is written, and TrainingError when the loss breaks down.
    """
    trainer.add_callback(LogFile(directory / "log.jsonl"))
    trainer.add_callback(interruption)
    before = Weights(prepared.config, trainer.model)
    with saved_quietly():
        trainer.train(resume_from_checkpoint=resume)
    if interruption.asked:
        step = trainer.state.global_step
        raise Interrupted(f"stopped at step {step}, checkpoint written; go on with --resume")
    strength, searched = apply_strength(trainer, prepared, before)
    saved = save_model(trainer.save_model, trainer.model, prepared.original.tokenizer, directory / "model")
    return Trained(
        trainer.model,
        _ending_of(trainer),
        [*prepared.cost, trainer.meter.cost(trainer.model, "unlearned", "training"), *searched],
        waypoints(trainer.curve, trainer.model, "unlearned", "training", prepared.config.seed, prepared.cost),
        [*trainer.notes[len(prepared.data.notes) :], *trainer.watch.notes(), *saved],
        strength,
    )


def _ending_of(trainer: UnlearnTrainer) -> Ending:
    """Return why training ended: as the stopping rules say, or since all steps were made."""
    stop = trainer.stop
    if stop is None:
        step = trainer.state.global_step
        return Ending(step=step, rule="end of the schedule", message=f"all {step} steps were made")
    return Ending(
        step=stop.step,
        rule=stop.rule,
        message=stop.message,
        met_at=stop.met_at,
        confirmed=stop.confirmed,
        halves=_halves_of(trainer.watch.state),
    )


def _halves_of(state: State) -> list[HalfBehaviour]:
    """Return how the original, and the weights of the last step if kept, behaved on each half of validation."""
    found = [_half("A", 0, state.before_a), _half("B", 0, state.before_b)]
    if state.stop is not None and state.stop.went_back_to is None:
        found.append(_half("A", state.seen.step, state.seen.a))
    found += [_half("B", look.step, look.behaviour, look.level, number) for number, look in enumerate(state.looks, 1)]
    return [half for half in found if half is not None]


def _half(
    half: Literal["A", "B"], step: int, seen: Behaviour | None, level: float = 0.95, look: int | None = None
) -> HalfBehaviour | None:
    if seen is None:
        return None
    value, low, high = wilson(seen.bad, seen.judged, level)
    return HalfBehaviour(
        half=half,
        step=step,
        value=value,
        low=low,
        high=high,
        n=seen.judged,
        unknown=seen.n - seen.judged,
        broken=seen.broken_share,
        level=level,
        look=look,
    )
