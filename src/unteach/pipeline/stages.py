"""What the stages of a run would take at most: tokens counted on its own rows, and rates timed on its own steps."""

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback

from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.models.context import context_length
from unteach.models.generate import generate
from unteach.models.kept_replies import tokens_of
from unteach.models.layers import first_trained
from unteach.objectives.methods import Method, load_method
from unteach.pipeline.prepare import READING, Prepared
from unteach.pipeline.strength import what_to_ask
from unteach.pipeline.train import make_trainer
from unteach.progress import track
from unteach.results.cost import flops_of
from unteach.results.measurement import HARM_SPLITS
from unteach.results.strength import AUTO
from unteach.scoring.likelihood import teacher_forced_likelihood
from unteach.scoring.lower import tokens_kept
from unteach.scoring.states_file import batches_of_states
from unteach.scoring.trees import packed_tokens, reply_trees
from unteach.training.data import halves
from unteach.training.dataset import run_items
from unteach.training.original import weighed
from unteach.training.preconditioning import is_preconditioned, rows_read
from unteach.training.selection import MOST_LOOKS, selection_of
from unteach.training.strength import most_looks
from unteach.training.trainer import UnlearnTrainer

OWN, STRENGTH, EVALUATION = "own answers", "searching the strength", "evaluation"
"""Stages beside those of training and the reading of the negatives; what evaluates begins with the last."""
STEPS = 4
"""Steps that are made to measure their time; the first does not count."""
ASKED, SAID = 16, 12
"""Prompts that are answered to measure the speed of decoding, and tokens of each answer."""


@dataclass(frozen=True)
class Stage:
    """What a stage would take at most: tokens as `flops_of` counts them.

    `within` are further tokens that go forward inside the steps of training, whose time holds them. `kept` of all are
    not read again by the layers below the first trained one.
    """

    name: str
    forward: int = 0
    backward: int = 0
    generated: int = 0
    within: int = 0
    kept: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.forward + self.backward + self.generated + self.within


@dataclass(frozen=True)
class Rates:
    """What a token of each kind of a `Stage` takes, in one unit: seconds, tokens or FLOPs."""

    forward: float
    backward: float
    generated: float
    within: float = 0.0
    kept: float = 0.0

    def of(self, stage: Stage) -> float:
        """Return what a stage would take."""
        return sum(getattr(self, one.name) * getattr(stage, one.name) for one in fields(self))


IN_TOKENS = Rates(1.0, 1.0, 1.0, 1.0)


def in_flops(model: Any) -> Rates:
    """Return the model FLOPs of each kind of token (`flops_of`); a token whose lower states are kept saves some."""
    forward, kept = flops_of(model, forward=1), flops_of(model, kept=1)
    return Rates(forward, flops_of(model, backward=1), flops_of(model, generated=1), forward, kept)


class Unasked:
    """Answers prompts without the model: each answer is as long as may be. Counts what the answers would take.

    `asked` has the number of prompts of each call.
    """

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.asked: list[int] = []

    def __call__(
        self, prompts: Sequence[tuple[str, str]], model: Any, form: PromptFormat, *, max_new_tokens: int, **_: Any
    ) -> list[Example]:
        context = context_length(model)
        rows = [Example.of(prompt, _stand_in(prompt, form, max_new_tokens), where=where) for prompt, where in prompts]
        lengths = [len(form.prompt_ids(row.turns)) for row in rows]
        fitting = [(row, n) for row, n in zip(rows, lengths, strict=True) if context is None or n < context]
        self.asked.append(len(fitting))
        self.stages.append(Stage(OWN, forward=sum(n for _, n in fitting), generated=max_new_tokens * len(fitting)))
        return [replace(row, cut=True) for row, _ in fitting]


def _stand_in(prompt: str, form: PromptFormat, tokens: int) -> str:
    """Return a text on the prompt's subject, of about so many tokens where the prompt has fewer."""
    each, begun = max(1, len(form.ids.of(" and so on"))), len(form.ids.of(prompt))
    return prompt + " and so on" * max(1, (tokens - begun) // each)


def short_trainer(prepared: Prepared, place: Path) -> UnlearnTrainer:
    """Make the trainer of the run, to make a few steps only and to save nothing."""
    arguments = copy(prepared.arguments)
    arguments.output_dir, arguments.save_strategy, arguments.progress = str(place), "no", False
    arguments.max_steps, arguments.stopping = min(STEPS, arguments.max_steps), False
    arguments.preconditioning = False  # would read all normal rows first
    if direction := load_method(arguments.method).direction:  # steps that cost as much, without the move
        arguments.method = "template" if direction == "first" else "ga"
    return make_trainer(replace(prepared, arguments=arguments))


# ---- tokens ----------------------------------------------------------------------------------------------------------


def stages_of(prepared: Prepared, model: Any, method: Method) -> list[Stage]:
    """Return what the stages would take at most, if all steps are made and no reply ends before its limit.

    `model` is as it is trained, with its adapter where it has one; its weights are not read.
    """
    args = prepared.arguments
    direction = load_method(args.method).direction
    found = _reading(prepared, model, method)
    if direction:
        found += _move(prepared)
    if direction != "alone":
        found += _steps(prepared, model, method)
    if args.stopping:
        found.append(_validation(prepared, 1 if direction == "alone" else args.max_steps // args.validation_steps))
    if prepared.config.strength == AUTO:
        found.append(_strength(prepared))
    return found + _evaluation(prepared)


def _reading(prepared: Prepared, model: Any, method: Method) -> list[Stage]:
    """Return what the original reads before the first step: negatives, to weigh them, and rows to precondition by."""
    data, args = prepared.data, prepared.arguments
    found = [Stage(READING, cost.tokens_forward or 0) for cost in prepared.cost if cost.stage == READING]
    if method.draws_by_likelihood and not found:
        rows = [data.negatives[number] for number in weighed(run_items(method, data, args))]
        found.append(Stage(READING, sum(tree.tokens for tree in reply_trees("rows", [row.ids for row in rows]))))
    if is_preconditioned(model, args, load_method(args.method).preconditioning, len(data.normals), False):
        read = rows_read(reply_trees("rows", [row.ids for row in data.normals]))
        found.append(Stage("the preconditioner on normal rows", sum(tree.tokens for tree in read)))
    return found


def _steps(prepared: Prepared, model: Any, method: Method) -> list[Stage]:
    """Return what all steps would take."""
    data, args = prepared.data, prepared.arguments
    items = run_items(method, data, args)
    drawn = [items[index] for index in range(len(items))]
    size = args.per_device_train_batch_size
    batches = [drawn[first : first + size] for first in range(0, len(drawn), size)]
    normals = sum(packed_tokens(trees) for batch in batches if (trees := [t for item in batch for t in item.normals]))
    found = []
    again = normals if method.reads_kl else 0  # the original reads them too: once each where states are kept
    if again and args.reference != "frozen" and not prepared.config.lora:
        distinct = {tree.key: tree for item in drawn for tree in item.normals}
        chunks = batches_of_states(list(distinct.values()))
        found.append(Stage("the original on normal rows", forward=sum(packed_tokens(chunk) for chunk in chunks)))
        again = 0
    trained = normals + sum(packed_tokens([item.forget for item in batch]) for batch in batches)
    kept = 0
    if first_trained(model):
        kept = min(trained, tokens_kept(tree for item in drawn for tree in (item.forget, *item.normals)))
    return [*found, Stage(f"training, {args.max_steps} steps", backward=trained, within=again, kept=kept)]


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


def _validation(prepared: Prepared, times: int) -> Stage:
    """Return what validating the original and then so many times would take."""
    data, args = prepared.data, prepared.arguments
    half = [halves(data.validation_negatives, args.seed)[which] for which in (0, 1)]
    read = [sum(len(row.prompt_ids) for row in rows) for rows in half]
    said = [len(rows) * args.validation_new_tokens for rows in half]
    kl, times = sum(row.length for row in data.validation_normals), 1 + times
    forward, generated = read[0] * times + 2 * read[1] + 2 * kl * times, said[0] * times + 2 * said[1]
    return Stage(f"validation, {times} times", forward=forward, generated=generated)


def _strength(prepared: Prepared) -> Stage:
    """Return what the search for the scale of the update would take."""
    asked, looks = what_to_ask(prepared), most_looks()
    prompts = [*(row.prompt_ids for row in asked.negatives), *asked.lookalikes]
    once = sum(map(len, prompts)) + sum(row.length for row in prepared.data.validation_normals)
    return Stage(STRENGTH, forward=looks * once, generated=looks * len(prompts) * asked.most)


def _evaluation(prepared: Prepared) -> list[Stage]:
    """Return what evaluating all arms would take."""
    evaluation, arms = prepared.evaluation, 2 + (prepared.config.retrained is not None)
    rows = [row for split in evaluation.splits.values() for row in split]
    if not rows:
        return []
    harm = [row for name, split in evaluation.splits.items() if name in HARM_SPLITS for row in split]
    most, again = evaluation.max_new_tokens, evaluation.samples
    once = sum(2 * len(row.prompt_ids) + row.length + 2 * most for row in rows) + sum(row.length for row in rows)
    once += again * sum(len(row.prompt_ids) for row in harm) + sum(row.length for row in evaluation.non_members)
    said = most * (len(rows) + again * len(harm))
    return [Stage(f"{EVALUATION} of {arms} arms", forward=arms * once, generated=arms * said)]


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


def in_seconds(prepared: Prepared, trainer: UnlearnTrainer) -> Rates:
    """Decode, read and train a little, and return how long a token takes in each.

    A token whose lower states are kept saves as large a share of its time as of its FLOPs.
    """
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
    saved = -flops_of(model, kept=1) / flops_of(model, backward=1)
    counted = trainer.meter.tokens["backward"] - saved * trainer.meter.tokens["kept"]
    backward = median(steps.seconds[1:] or steps.seconds) * len(steps.seconds) / counted
    kept = -saved * backward if trainer.shortcuts.lower else 0.0
    return Rates(forward, backward, max(0.0, took - forward * read) / max(1, said), kept=kept)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many seconds a piece of work took, and its result."""
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result
