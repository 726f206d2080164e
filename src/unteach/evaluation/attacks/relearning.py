"""A few steps of ordinary fine-tuning: does the bad behaviour come back, and how fast?"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from unteach.data.encoded import Encoded
from unteach.evaluation.attacks.base import Attack, Outcome, Target
from unteach.evaluation.weights import restored
from unteach.models.ranks import weights_of_first_rank
from unteach.training.config import default_learning_rate

BATCH = 4
HARMFUL, HARMLESS = "held-back negatives", "normal rows"


class Relearning(Attack):
    """Full fine-tuning by AdamW (no weight decay, clipped at norm 1) at a rate of 0.025 / width, 4 rows a step.

    One curve learns held-back negatives with their bad replies, the other normal rows, which teach nothing bad. The
    attacked prompts stand in neither. The curve is measured after the steps of the plan and after one pass over the
    rows. Every rank makes every step, since steps so small are not worth sharing, and the weights that are asked are
    those of the first. Source: arXiv 2406.13356, relearning attacks; the optimiser is ours, and the same for every arm.
    """

    name = "relearning"
    title = "relearning"
    asks = "Do a few steps of fine-tuning on other negatives, or on harmless rows, bring the bad replies back?"
    changes = "weights"

    def __call__(self, target: Target) -> list[Outcome]:
        target = replace(target, key=None)
        outcomes = []
        for series, rows in ((HARMFUL, target.rows.held_back), (HARMLESS, target.rows.normal)):
            if rows:
                with restored(target.model):
                    outcomes += list(_curve(target, series, rows[: target.plan.held_back]))
        return outcomes


def _curve(target: Target, series: str, rows: Sequence[Encoded]) -> Iterator[Outcome]:
    """Fine-tune, and measure on the way."""
    epoch = -(-len(rows) // BATCH)
    points = sorted({*target.plan.steps, epoch})
    model = target.model
    model.eval().requires_grad_(True)  # no dropout, as in our own training
    rate = default_learning_rate(model, lora=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    batches = _batches(rows, points[-1], target.seed)
    for step in range(1, points[-1] + 1):
        _learn(target, optimizer, next(batches))
        if step in points:
            weights_of_first_rank(model)
            level = f"{step} step{'s' if step > 1 else ''}{' (one pass)' if step == epoch else ''}"
            yield Outcome(level, target.ask_plainly(), series, step, {"learning_rate": rate})


def _batches(rows: Sequence[Encoded], steps: int, seed: int) -> Iterator[list[Encoded]]:
    """Yield the rows of each step, in an order drawn anew for each pass."""
    draw, queue = random.Random(f"relearning:{seed}"), list[Encoded]()
    for _ in range(steps):
        if not queue:
            queue = draw.sample(list(rows), len(rows))
        yield queue[:BATCH]
        queue = queue[BATCH:]


def _learn(target: Target, optimizer: Any, rows: Sequence[Encoded]) -> None:
    """Make one step on the replies of these rows: cross-entropy, mean over reply tokens."""
    model = target.model
    width = max(row.length for row in rows)
    ids = torch.full((len(rows), width), target.form.ids.pad_id)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : row.length] = torch.tensor([*row.prompt_ids, *row.reply_ids])
        labels[place, len(row.prompt_ids) : row.length] = torch.tensor(row.reply_ids)
        mask[place, : row.length] = 1
    place_of = model.device
    logits = model(input_ids=ids.to(place_of), attention_mask=mask.to(place_of), use_cache=False).logits
    shifted = labels[:, 1:].to(place_of)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), shifted.flatten(), ignore_index=-100)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    target.meter.add(backward=sum(row.length for row in rows))


attack = Relearning()
