"""What a run trains on, item by item: made from its rows, its method and its settings."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError
from unteach.objectives.methods import Method
from unteach.progress import track
from unteach.training.config import UnlearnConfig
from unteach.training.dataset import UnlearnItems, decoys_of
from unteach.training.draws import negative_drawn, shares_of
from unteach.training.sets import TrainingSets


def needed(method: Method, retain: Any, mismatch_replies: Sequence[str] | None) -> Any:
    """Return the retain set; raise ConfigError where the method reads one and there is none."""
    decoys_from_normals = method.reads("mismatch") and mismatch_replies is None
    if retain is None and (method.reads("normal") or decoys_from_normals):
        raise ConfigError(
            f"method {method.name} reads normal rows and retain_dataset is missing; give one, or make normals "
            "from the model's own answers with unteach.data.own_answers.generate_normals"
        )
    return retain


def run_items(
    method: Method,
    sets: TrainingSets,
    args: UnlearnConfig,
    form: PromptFormat,
    mismatch_replies: Sequence[str] | None,
) -> UnlearnItems:
    """Lay out the whole run's items; `max_steps` wins over epochs, as in the Trainer.

    Raises ConfigError for an empty template and for fewer decoys than a prompt needs.
    """
    assert args.max_length is not None
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    if args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * len(sets.negatives) / batch)
    passages = all(row.example.is_passage for row in sets.negatives)  # a text goes on with text
    kin = [row for row in sets.normals if row.example.is_passage == passages] or sets.normals
    own = [row.reply_ids for row in kin if not row.truncated]
    template = None
    if method.reads("template"):
        if not args.template.strip():
            raise ConfigError("--template is empty, which would teach silence; write the answer that is wanted")
        template = [tuple(form.reply_ids(row.example.turns, args.template)) for row in sets.negatives]
    return UnlearnItems(
        sets.negatives,
        sets.normals,
        length=args.max_steps * batch,
        seed=args.seed,
        decoys=own if mismatch_replies is None else decoys_of(mismatch_replies, form),
        mismatch_samples=args.mismatch_samples if method.reads("mismatch") else 0,
        normals_per_negative=method.normals(args.normals_per_negative),
        template_replies=template,
        interrupted=method.interrupted,
        rto=method.reads("rto"),
        max_length=args.max_length,
    )


def negative_shares(model: Any, items: UnlearnItems, pad_id: int, progress: bool) -> tuple[np.ndarray, int]:
    """Return the negatives' shares of the rounds, by how likely the original says them, and the tokens that it read.

    Where there are many more rows than items, rows that an even draw would not have reached soon have a share of 0.
    """
    count = len(items.negatives)
    asked = sorted({negative_drawn(n, count, items.seed) for n in range(min(count, 2 * len(items)))})
    pairs = [(items.negatives[n].prompt_ids, items.negatives[n].reply_ids) for n in asked]
    shares = np.zeros(count)
    with track("reading the negatives", progress) as report:
        shares[asked] = shares_of(model, pairs, pad_id, report)
    return shares, sum(len(prompt) + len(reply) for prompt, reply in pairs)
