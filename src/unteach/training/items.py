"""What a run trains on, item by item: made from its rows, its method and its settings."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unteach.errors import ConfigError
from unteach.objectives.methods import Method
from unteach.progress import track
from unteach.scoring.trees import reply_trees
from unteach.training.config import UnlearnConfig
from unteach.training.data import TrainingData
from unteach.training.dataset import UnlearnItems, decoys_of
from unteach.training.draws import negative_drawn, shares_of


def require_retain(method: Method, retain: Any, mismatch_replies: Sequence[str] | None) -> None:
    """Raise ConfigError where the method reads normal rows and there are none."""
    decoys_from_normals = method.reads("mismatch") and mismatch_replies is None
    if retain is None and (method.reads("normal") or decoys_from_normals):
        raise ConfigError(
            f"method {method.name} reads normal rows and retain_dataset is missing; give one, or make normals "
            "from the model's own answers with unteach.data.own_answers.generate_normals"
        )


def items_per_step(args: UnlearnConfig) -> int:
    """Return how many items an optimizer step takes, over all ranks."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def run_items(
    method: Method,
    data: TrainingData,
    args: UnlearnConfig,
    max_length: int,
    mismatch_replies: Sequence[str] | None = None,
) -> UnlearnItems:
    """Lay out the items of the whole run; `max_steps` wins over epochs, as in the Trainer.

    `max_length` is the longest prompt and reply in tokens. Raises ConfigError for an empty template and for fewer
    decoys than a prompt needs.
    """
    batch = items_per_step(args)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * len(data.negatives) / batch)
    passages = all(row.example.is_passage for row in data.negatives)  # a text goes on with text
    kin = [row for row in data.normals if row.example.is_passage == passages] or data.normals
    own = [row.reply_ids for row in kin if not row.truncated]
    template = None
    if method.reads("template"):
        if not args.template.strip():
            raise ConfigError("--template is empty, which would teach silence; write the answer that is wanted")
        template = [tuple(data.form.reply_ids(row.example.turns, args.template)) for row in data.negatives]
    items = UnlearnItems(
        data.negatives,
        data.normals,
        length=steps * batch,
        seed=args.seed,
        decoys=own if mismatch_replies is None else decoys_of(mismatch_replies, data.form),
        mismatch_samples=args.mismatch_samples if method.reads("mismatch") else 0,
        normals_per_negative=method.normals(args.normals_per_negative),
        template_replies=template,
        interrupted=method.template_midway,
        rto=method.reads("rto"),
        max_length=max_length,
    )
    if data.shares is not None:
        items.share_out(data.shares)
    return items


def negative_shares(model: Any, items: UnlearnItems, pad_id: int, progress: bool = True) -> tuple[np.ndarray, int]:
    """Return the negatives' shares of the rounds, by how likely the original says them, and the tokens that it read.

    Where there are many more rows than items, rows that an even draw would not have reached soon have a share of 0.
    """
    count = len(items.negatives)
    asked = sorted({negative_drawn(n, count, items.seed) for n in range(min(count, 2 * len(items)))})
    rows = reply_trees("negatives", [items.negatives[n].ids for n in asked])
    shares = np.zeros(count)
    with track("reading the negatives", progress) as report:
        shares[asked] = shares_of(model, rows, pad_id, report)
    return shares, sum(row.tokens for row in rows)
