"""unteach run --dry-run: what a run would take, counted on its own rows, and timed on a few of its own steps."""

import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from unteach.pipeline.as_trained import as_trained
from unteach.pipeline.budget import planned
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.prepare import Prepared, check_given, prepare
from unteach.pipeline.settings import flag
from unteach.pipeline.stages import Rates, Stage, Unasked, in_flops, in_seconds, short_trainer, stages_of
from unteach.report import wording
from unteach.report.wording import seconds, size
from unteach.results.cost import multiplying_parameters, peak_bytes
from unteach.text.escape import inert_line
from unteach.training.trainer import UnlearnTrainer


def dry_run(config: RunConfig) -> str:
    """Say what a run would do and take: rows, settings, and tokens, FLOPs, time, memory and disk of each stage.

    The rows are read and encoded as in a run, and the model is loaded. Answers that it would give first are not asked
    for: stand-ins as long as may be take their place. A few steps are made and forgotten. Nothing is written to the
    run's directory. A budget is planned into first. Raises what `run` would raise before training.
    """
    check_given(config)
    asked, told = as_trained(config, config.model)
    config = planned(with_defaults(asked), asked)
    unasked = Unasked()
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(config, Path(place), answer=unasked)
        trainer = short_trainer(prepared, Path(place))
        stages = [*unasked.stages, *stages_of(prepared, trainer.model, trainer.method)]
        speed = in_seconds(prepared, trainer)
    parts = (_settings(prepared), _rows(prepared), _table(stages, speed, trainer.model), _room(prepared, trainer))
    served = ["the original's replies are timed as if they were generated here"] if config.generate_with else []
    notes = [f"note: {inert_line(note, 400)}" for note in (*told, *served, *prepared.notes)]
    return "\n\n".join("\n".join(part) for part in (*parts, notes) if part)


# ---- what is printed -------------------------------------------------------------------------------------------------


def _settings(prepared: Prepared) -> list[str]:
    """Say what would be trained, and list the settings that are not those of a run without flags."""
    config, model = prepared.config, prepared.original.model
    weights, _ = multiplying_parameters(model)
    how = f"LoRA of rank {config.lora_rank}" if config.lora else "all weights"
    device = f"cpu ({torch.get_num_threads()} at a time)" if model.device.type == "cpu" else str(model.device)
    fields = type(config).model_fields
    chosen = {name: getattr(config, name) for name in fields if getattr(config, name) != fields[name].default}
    known = ("model", "lora", "output", "device", "plan")
    listed = ", ".join(f"{flag(name)} {_shown(value)}" for name, value in chosen.items() if name not in known)
    return [f"{config.model}: {size(weights, '')} parameters, {how}, on {device}", f"settings: {listed}"]


def _shown(value: Any) -> str:
    text = (
        " ".join(map(str, value)) if isinstance(value, list) else f"{value:.3g}" if isinstance(value, float) else value
    )
    return inert_line(str(text), 120)


def _rows(prepared: Prepared) -> list[str]:
    """Say how many rows would be used, and for what."""
    data = prepared.data
    trained = {"negatives": data.negatives, "normal rows": data.normals}
    validated = {"negatives": data.validation_negatives, "normal rows": data.validation_normals}
    lines = [
        f"{name}: {len(rows)} to train on, {len(validated[name])} to validate on" for name, rows in trained.items()
    ]
    splits = ", ".join(f"{len(rows)} {wording.SHORT_SPLITS[name]}" for name, rows in prepared.evaluation.splits.items())
    return [*lines, f"evaluated: {splits or 'nothing'}"]


def _table(stages: Sequence[Stage], speed: Rates, model: Any) -> list[str]:
    """Return a line for each stage, and one for all."""
    names = list(dict.fromkeys(stage.name for stage in stages))
    summed = [_sum(name, [stage for stage in stages if stage.name == name]) for name in names]
    lines, work = [("at most", "tokens", "", "time")], in_flops(model)
    for stage in summed:
        took = seconds(speed.of(stage))
        lines.append((stage.name, size(stage.tokens, ""), size(work.of(stage), "FLOP"), took))
    whole, flops = sum(map(speed.of, summed)), sum(map(work.of, summed))
    lines.append(("in all", size(sum(stage.tokens for stage in summed), ""), size(flops, "FLOP"), seconds(whole)))
    return [f"{name:<34}{tokens:>10}{flops:>14}{took:>14}" for name, tokens, flops, took in lines]


def _sum(name: str, stages: Sequence[Stage]) -> Stage:
    parts = [one.name for one in fields(Stage) if one.name != "name"]
    return Stage(name, **{part: sum(getattr(stage, part) for stage in stages) for part in parts})


def _room(prepared: Prepared, trainer: UnlearnTrainer) -> list[str]:
    """Say how much memory a few steps took, and what would be written."""
    model, stopping = trainer.model, prepared.arguments.stopping
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    whole = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    saved = 4 * trained if prepared.config.lora else whole
    kept = (saved + 8 * trained) * (2 if stopping else 1)  # weights, and two moments of Adam in float32
    return [
        f"memory: {size(peak_bytes())} at the peak of these steps",
        f"disk: the model {size(saved)}, checkpoints about {size(kept)} while it trains",
        "The rules may end the run before all steps are made, and replies may end before their limit.",
    ]
