"""Move a model along one direction, before its first step or instead of all steps.

The direction is that of `unteach.training.repselect`. How far the weights move along it is found with forward passes
alone: as far as the KL on validation normals stays within a budget. Direction, looks and cost lie in the directory of
the checkpoints, so that a run that was killed goes on and ends with the same bytes.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unteach.disk.files import whole_directory, write_whole
from unteach.errors import ConfigError
from unteach.progress import OnProgress, track
from unteach.scoring.trees import TreeBatch, lay_out, reply_trees
from unteach.training.behaviour import Behaviour
from unteach.training.config import UnlearnConfig
from unteach.training.draws import NORMAL, negative_drawn, nth_of_shuffled
from unteach.training.repselect import find_direction
from unteach.training.selection import MOST_LOOKS, Selection, disruption_of, selection_of
from unteach.training.stopping import Confirmation, Measured, Seen, Stop
from unteach.training.target import failure, hindrance, told
from unteach.training.update import Update
from unteach.training.validation import loss_on
from unteach.training.watch import logged

FILE = "direction.safetensors"
FIRST = 1e-3
"""The scale of the first look: weights moved by a thousandth of their norm."""
NEAR = 0.05
"""The search ends once the KL is below its budget by at most this share, or two scales differ by less."""


@dataclass(frozen=True)
class AtScale:
    """What forward passes saw at a scale, in nats per token: the KL on validation normals, the NLL of bad replies."""

    scale: float
    kl: float
    nll: float


def strongest(budget: float, kl_at: Callable[[float], float], first: float = FIRST) -> float:
    """Return the largest scale found whose KL is within the budget; 0 where there is none.

    Scales are doubled until the KL is over the budget, or halved until it is within, and then bisected by their
    geometric mean. A KL that is no number is over it.
    """
    low, high, scale = 0.0, math.inf, first
    for _ in range(MOST_LOOKS):
        kl = kl_at(scale)
        if kl <= budget:
            low = scale
        else:
            high = scale
        if (low and high / low <= 1 + NEAR) or budget * (1 - NEAR) <= kl <= budget:
            break
        scale = 2 * low if high == math.inf else high / 2 if not low else math.sqrt(low * high)
    return low


def move(trainer: Any) -> None:
    """Move the model of an `UnlearnTrainer` along its direction, and note what that did.

    The original must have been read. Where no step follows, the run ends here. Raises ConfigError where there are no
    rows to measure the KL on, and where no scale is within the budget.
    """
    if not (trainer.data.validation_normals and trainer.data.normals):
        raise ConfigError(
            f"--method {trainer.args.method}: there are no normal rows to measure the KL on; add --retain"
        )
    trainer.watch.begin()
    kept = _Kept(trainer)
    update = Update(kept.direction)
    budget = disruption_of(trainer.args)
    try:
        with track("moving along the direction", trainer.args.progress) as progress:
            kept.look(update, 0.0, progress or _silent)
            scale = strongest(budget, lambda scale: kept.look(update, scale, progress or _silent).kl)
        if not scale:
            raise ConfigError(
                f"no scale keeps the KL within {budget:g} nats per token; set a larger --set trainer.disruption"
            )
        update.apply(trainer.model, scale)
    except BaseException:
        update.undo(trainer.model)
        raise
    trainer.notes.append(_told(kept.looks, budget))
    if trainer.method.direction == "alone":
        _end(trainer, next(look for look in kept.looks if look.scale == scale), budget)


def _silent(done: int, total: int) -> None:
    """Show nothing."""


def note_of(directory: Path, args: UnlearnConfig) -> list[str]:
    """Return what the move did in a run that goes on after it, for its report."""
    state = directory / "direction" / "state.json"
    looks = [AtScale(*values) for values in json.loads(state.read_text())["looks"]] if state.is_file() else []
    return [_told(looks, disruption_of(args))] if looks else []


class _Kept:
    """The direction and the looks of a run, on disk where it saves anything; from there, if they are of this run."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._directory = Path(trainer.args.output_dir) / "direction"
        self._saves = trainer.args.save_strategy != "no"
        self._negatives = reply_trees("validation_negatives", [r.ids for r in trainer.data.validation_negatives])
        selection = selection_of(trainer.args)
        self._key = _key(trainer, selection)
        found = self._read()
        if found is None:
            self.looks, self.direction = list[AtScale](), _find(trainer, selection)
            if self._saves:
                with whole_directory(self._directory) as partial:
                    save_file({name: part.contiguous().cpu() for name, part in self.direction.items()}, partial / FILE)
                    write_whole(partial / "state.json", self._state())
        else:
            self.direction, state = found
            self.looks = [AtScale(*values) for values in state["looks"]]
            trainer.meter.restore(state["meter"])
        for look in self.looks:
            self._log(look)

    def look(self, update: Update, scale: float, progress: OnProgress) -> AtScale:
        """Return what is seen at a scale, from an earlier look where there was one; the weights are left there."""
        trainer = self._trainer
        found = next((look for look in self.looks if look.scale == scale), None)
        if found is None:
            update.apply(trainer.model, scale)
            with trainer.accelerator.autocast():
                kl = trainer.watch.measures["kl"]()
                nll = loss_on(trainer.model, self._negatives, None, trainer.data.form.ids.pad_id)["loss"]
            trainer.meter.add(forward=sum(row.tokens for row in self._negatives))
            found = AtScale(scale, kl if math.isfinite(kl) else math.inf, nll)
            self.looks.append(found)
            if self._saves:
                write_whole(self._directory / "state.json", self._state())
            self._log(found)
        progress(len(self.looks), MOST_LOOKS)
        return found

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the direction and the state of this very run, if they are there."""
        try:
            state = json.loads((self._directory / "state.json").read_text())
            return (load_file(self._directory / FILE), state) if state.get("key") == self._key else None
        except (OSError, ValueError, SafetensorError):
            return None

    def _state(self) -> str:
        looks = [astuple(look) for look in self.looks]
        return json.dumps({"key": self._key, "looks": looks, "meter": self._trainer.meter.state()})

    def _log(self, look: AtScale) -> None:
        self._trainer.log({"scale": look.scale, "moved_kl": look.kl, "moved_ce": look.nll})


def _key(trainer: Any, selection: Selection) -> str:
    """Return a text that differs where direction or looks would: of the original, the rows and the settings."""
    data, args = trainer.data, trainer.args
    rows = [
        [row.ids for row in rows]
        for rows in (data.negatives, data.normals, data.validation_negatives, data.validation_normals)
    ]
    weights = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    facts = [trainer.original_key, asdict(selection), disruption_of(args), args.per_device_train_batch_size, weights]
    return hashlib.sha256(json.dumps([facts, rows]).encode()).hexdigest()


def _find(trainer: Any, selection: Selection) -> dict[str, Tensor]:
    """Find the direction, at its cost: a pass over normals, and two over negatives; one if nothing is elicited."""
    negatives, normals = _batches(trainer)
    with track("finding the direction", trainer.args.progress) as progress, trainer.accelerator.autocast():
        direction = find_direction(trainer.model, negatives, normals, selection, progress or _silent)
    read = [batch.token_count * (1 + bool(selection.elicitation_rate)) for batch in negatives]
    read += [batch.token_count for batch in normals if selection.of == "normals"]
    trainer.meter.add(backward=sum(read))
    return direction


def _batches(trainer: Any) -> tuple[list[TreeBatch], list[TreeBatch]]:
    """Lay out the negatives and as many normals as plain rows, each once, in an order that the seed draws."""
    data, args = trainer.data, trainer.args
    count, size = len(data.negatives), args.per_device_train_batch_size
    drawn = [data.negatives[negative_drawn(number, count, args.seed)] for number in range(count)]
    others = len(data.normals)
    normals = [data.normals[nth_of_shuffled(n, others, args.seed, NORMAL)] for n in range(min(count, others))]
    laid_out = []
    for rows in (drawn, normals):
        trees = reply_trees("moved", [row.ids for row in rows])
        parts = [trees[first : first + size] for first in range(0, len(trees), size)]
        laid_out.append([lay_out(part, data.form.ids.pad_id).to(args.device) for part in parts])
    return laid_out[0], laid_out[1]


def _told(looks: list[AtScale], budget: float) -> str:
    """Say how far the weights were moved, and what that did."""
    within = [look for look in looks if look.kl <= budget]
    original, chosen = min(looks, key=lambda look: look.scale), max(within, key=lambda look: look.scale)
    return (
        f"the weights were moved along one direction by {chosen.scale:.2g} times their norm, found in {len(looks)} "
        f"looks: KL {chosen.kl:.3g} nats per token on validation normals, budget {budget:g}; the bad replies of "
        f"validation have {chosen.nll:.2f} nats per token, where the original has {original.nll:.2f}"
    )


def _end(trainer: Any, look: AtScale, budget: float) -> None:
    """End a run that makes no steps: the move counts as its one step, and its weights answer both halves."""
    watch, trainer.state.global_step = trainer.watch, 1
    halves: tuple[Measured, ...] = ("a", "b") if watch.limits.reads_replies else ()
    found: dict[Measured, Behaviour] = {name: watch.measures[name]() for name in halves}
    state, limits = watch.state, watch.limits
    why = hindrance(limits, state.before_a, state.before_b)
    for half, before in zip(halves, (state.before_a, state.before_b), strict=False):
        if not why and (failed := failure(limits, before, found[half])):
            why = f"on half {half.upper()} {failed}"
    both = "".join(f"; half {half.upper()} {told(seen)}" for half, seen in found.items())
    outcome = f"the behaviour target was not confirmed: {why}" if why else f"the behaviour target is kept{both}"
    moved = f"the weights were moved along one direction up to a KL of {look.kl:.3g} nats per token"
    outcome = f"{moved}, budget {budget:g}, and {outcome}"
    looks = (Confirmation(1, found["b"], 0.95),) if found else ()
    stop = Stop(1, "disruption budget", outcome, confirmed=not why, met_at=None if why else 1)
    seen = Seen(1, kl=look.kl, a=found.get("a"), b=found.get("b"), last=True)
    watch.state = replace(state, phase="ended", seen=seen, looks=looks, stop=stop)
    trainer.log({"scale": look.scale} | logged(found))
