"""unteach run --dry-run: what a run would take, counted on its own rows, and timed on a few of its own steps."""

import tempfile
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import TrainerCallback

from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.models.context import context_length
from unteach.models.generate import generate
from unteach.models.kept_replies import tokens_of
from unteach.objectives.methods import load_method
from unteach.pipeline.as_trained import as_trained
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.prepare import READING, Prepared, check_given, prepare
from unteach.pipeline.settings import flag
from unteach.pipeline.train import make_trainer
from unteach.progress import track
from unteach.report import wording
from unteach.report.wording import seconds, size
from unteach.results.cost import flops_of, multiplying_parameters, peak_bytes
from unteach.scoring.likelihood import teacher_forced_likelihood
from unteach.scoring.trees import reply_trees
from unteach.text.escape import inert_line
from unteach.training.data import halves
from unteach.training.dataset import UnlearnCollator, run_items
from unteach.training.selection import MOST_LOOKS, selection_of
from unteach.training.trainer import UnlearnTrainer

STEPS = 4
"""Steps that are made to measure their time; the first does not count."""
ASKED, SAID = 16, 12
"""Prompts that are answered to measure the speed of decoding, and tokens of each answer."""


@dataclass(frozen=True)
class Stage:
    """What a stage would take at most: tokens as `flops_of` counts them.

    `within` are further tokens that go forward inside the steps of training, whose time holds them.
    """

    name: str
    forward: int = 0
    backward: int = 0
    generated: int = 0
    within: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.forward + self.backward + self.generated + self.within

    def flops(self, model: Any) -> float:
        """Return the model FLOPs."""
        return flops_of(model, self.forward + self.within, self.backward, self.generated)


@dataclass(frozen=True)
class Speed:
    """Measured seconds per token that goes forward only, that is trained on, and that is generated."""

    forward: float
    backward: float
    generated: float

    def seconds(self, stage: Stage) -> float:
        """Return how long a stage would take."""
        return stage.forward * self.forward + stage.backward * self.backward + stage.generated * self.generated


def dry_run(config: RunConfig) -> str:
    """Say what a run would do and take: rows, settings, and tokens, FLOPs, time, memory and disk of each stage.

    The rows are read and encoded as in a run, and the model is loaded. Answers that it would give first are not asked
    for: stand-ins as long as may be take their place. A few steps are made and forgotten. Nothing is written to the
    run's directory. Raises what `run` would raise before training.
    """
    check_given(config)
    asked, told = as_trained(config, config.model)
    config = with_defaults(asked)
    unasked = _Unasked()
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(config, Path(place), answer=unasked)
        trainer = _short_trainer(prepared, Path(place))
        stages = [*unasked.stages, *_stages(prepared, trainer)]
        speed = _measure(prepared, trainer)
    parts = (_settings(prepared), _rows(prepared), _table(stages, speed, trainer.model), _room(prepared, trainer))
    notes = [f"note: {inert_line(note, 400)}" for note in (*told, *prepared.notes)]
    return "\n\n".join("\n".join(part) for part in (*parts, notes) if part)


class _Unasked:
    """Answers prompts without the model: each answer is as long as may be. Counts what the answers would take."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def __call__(
        self, prompts: Sequence[tuple[str, str]], model: Any, form: PromptFormat, *, max_new_tokens: int, **_: Any
    ) -> list[Example]:
        context = context_length(model)
        rows = [Example.of(prompt, _stand_in(prompt, form, max_new_tokens), where=where) for prompt, where in prompts]
        lengths = [len(form.prompt_ids(row.turns)) for row in rows]
        fitting = [(row, n) for row, n in zip(rows, lengths, strict=True) if context is None or n < context]
        self.stages.append(
            Stage("own answers", forward=sum(n for _, n in fitting), generated=max_new_tokens * len(fitting))
        )
        return [replace(row, cut=True) for row, _ in fitting]


def _stand_in(prompt: str, form: PromptFormat, tokens: int) -> str:
    """Return a text on the prompt's subject, of about so many tokens where the prompt has fewer."""
    each, begun = max(1, len(form.ids.of(" and so on"))), len(form.ids.of(prompt))
    return prompt + " and so on" * max(1, (tokens - begun) // each)


def _short_trainer(prepared: Prepared, place: Path) -> UnlearnTrainer:
    """Make the trainer of the run, to make a few steps only and to save nothing."""
    arguments = copy(prepared.arguments)
    arguments.output_dir, arguments.save_strategy, arguments.progress = str(place), "no", False
    arguments.max_steps, arguments.stopping = min(STEPS, arguments.max_steps), False
    arguments.preconditioning = False  # would read all normal rows first
    if direction := load_method(arguments.method).direction:  # steps that cost as much, without the move
        arguments.method = "template" if direction == "first" else "ga"
    return make_trainer(replace(prepared, arguments=arguments))


# ---- tokens ----------------------------------------------------------------------------------------------------------


def _stages(prepared: Prepared, trainer: UnlearnTrainer) -> list[Stage]:
    """Return what the stages would take at most, if all steps are made and no reply ends before its limit."""
    data, args, evaluation = prepared.data, prepared.arguments, prepared.evaluation
    found = [Stage(READING, cost.tokens_forward or 0) for cost in prepared.cost if cost.stage == READING]
    direction = load_method(args.method).direction
    if direction:
        found += _move(prepared)
    if direction != "alone":
        found += _steps(prepared, trainer)
    if args.stopping:
        half = [halves(data.validation_negatives, args.seed)[which] for which in (0, 1)]
        read = [sum(len(row.prompt_ids) for row in rows) for rows in half]
        said = [len(rows) * args.validation_new_tokens for rows in half]
        times = 1 + (1 if direction == "alone" else args.max_steps // args.validation_steps)
        kl = sum(row.length for row in data.validation_normals)
        found.append(
            Stage(
                f"validation, {times} times",
                forward=read[0] * times + 2 * read[1] + 2 * kl * times,
                generated=said[0] * times + 2 * said[1],
            )
        )
    rows = [row for split in evaluation.splits.values() for row in split]
    arms = 2 + (prepared.config.retrained is not None)
    most = evaluation.max_new_tokens
    once = sum(2 * len(row.prompt_ids) + row.length + 2 * most for row in rows) + sum(row.length for row in rows)
    if rows:
        found.append(Stage(f"evaluation of {arms} arms", forward=arms * once, generated=arms * most * len(rows)))
    return found


def _steps(prepared: Prepared, trainer: UnlearnTrainer) -> list[Stage]:
    """Return what all steps would take."""
    data, args = prepared.data, prepared.arguments
    items = run_items(trainer.method, data, args)
    drawn = [items[index] for index in range(len(items))]
    size = args.per_device_train_batch_size
    batches = [UnlearnCollator()(drawn[first : first + size]) for first in range(0, len(drawn), size)]
    normals = sum(batch["normal"].token_count for batch in batches if "normal" in batch)
    found = []
    again = normals if trainer.method.reads_kl else 0  # the original reads them too: once each where states are kept
    if again and args.reference != "frozen" and not prepared.config.lora:
        distinct = {tree.key: tree.places for item in drawn for tree in item.normals}
        found.append(Stage("the original on normal rows", forward=sum(distinct.values())))
        again = 0
    trained = normals + sum(batch["forget"].token_count for batch in batches)
    return [*found, Stage(f"training, {args.max_steps} steps", backward=trained, within=again)]


def _move(prepared: Prepared) -> list[Stage]:
    """Return what finding a direction and the scale would take (`unteach.training.move`)."""
    data, args = prepared.data, prepared.arguments
    selection = selection_of(args)
    negatives = sum(row.length for row in data.negatives) * (1 + bool(selection.elicitation_rate))
    normals = sum(sorted(row.length for row in data.normals)[-len(data.negatives) :])
    look = sum(row.length for row in (*data.validation_negatives, *data.validation_normals))
    return [
        Stage("finding the direction", backward=negatives + normals * (selection.of == "normals")),
        Stage(f"{MOST_LOOKS} looks along it", forward=MOST_LOOKS * look),
    ]


# ---- time ------------------------------------------------------------------------------------------------------------


class _StepTimes(TrainerCallback):
    """Takes the time of each step."""

    def __init__(self) -> None:
        self.began, self.seconds = 0.0, list[float]()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it."""
        self.seconds.append(time.monotonic() - self.began)


def _measure(prepared: Prepared, trainer: UnlearnTrainer) -> Speed:
    """Decode, read and train a little, and return how long a token takes in each."""
    form, model = prepared.original.form, trainer.model
    rows = prepared.data.negatives[:ASKED]
    prompts, trees = [row.prompt_ids for row in rows], reply_trees("measured", [row.ids for row in rows])
    settings: dict[str, Any] = {"max_new_tokens": SAID, "end": form.end}
    with track("measuring a few steps"):
        took, _ = _timed(lambda: teacher_forced_likelihood(model, trees, form.ids.pad_id))
        forward = took / sum(row.length for row in rows)
        took, replies = _timed(lambda: generate(model, form.tokenizer, prompts, **settings))
        read, said = tokens_of(prompts, replies)
        steps = _StepTimes()
        trainer.add_callback(steps)
        trainer.train()
    tokens = trainer.meter.tokens["backward"] / len(steps.seconds)
    later = steps.seconds[1:] or steps.seconds
    return Speed(forward, median(later) / tokens, max(0.0, took - forward * read) / max(1, said))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many seconds a piece of work took, and its result."""
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result


# ---- what is printed -------------------------------------------------------------------------------------------------


def _settings(prepared: Prepared) -> list[str]:
    """Say what would be trained, and list the settings that are not those of a run without flags."""
    config, model = prepared.config, prepared.original.model
    weights, _ = multiplying_parameters(model)
    how = f"LoRA of rank {config.lora_rank}" if config.lora else "all weights"
    device = f"cpu ({torch.get_num_threads()} at a time)" if model.device.type == "cpu" else str(model.device)
    fields = type(config).model_fields
    chosen = {name: getattr(config, name) for name in fields if getattr(config, name) != fields[name].default}
    known = ("model", "lora", "output", "device")
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


def _table(stages: Sequence[Stage], speed: Speed, model: Any) -> list[str]:
    """Return a line for each stage, and one for all."""
    names = list(dict.fromkeys(stage.name for stage in stages))
    summed = [_sum(name, [stage for stage in stages if stage.name == name]) for name in names]
    lines = [("at most", "tokens", "", "time")]
    for stage in summed:
        took = seconds(speed.seconds(stage))
        lines.append((stage.name, size(stage.tokens, ""), size(stage.flops(model), "FLOP"), took))
    whole = sum(speed.seconds(stage) for stage in summed)
    flops = sum(stage.flops(model) for stage in summed)
    lines.append(("in all", size(sum(stage.tokens for stage in summed), ""), size(flops, "FLOP"), seconds(whole)))
    return [f"{name:<34}{tokens:>10}{flops:>14}{took:>14}" for name, tokens, flops, took in lines]


def _sum(name: str, stages: Sequence[Stage]) -> Stage:
    parts = ("forward", "backward", "generated", "within")
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
