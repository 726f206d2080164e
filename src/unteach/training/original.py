"""What training reads from the original before it begins."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from unteach.objectives.methods import Method
from unteach.progress import track
from unteach.scoring.likelihood import teacher_forced_likelihood
from unteach.scoring.trees import Tree, reply_trees
from unteach.training.data import TrainingData
from unteach.training.dataset import UnlearnItems
from unteach.training.draws import negative_drawn

FLOOR = 0.1
"""Smallest share of a row: one that the original hardly says is trained on in every tenth round."""


def compared_rows(method: Method, data: TrainingData, items: UnlearnItems) -> list[Tree]:
    """Return the rows that this run can draw and that the method compares with the original."""
    trees: list[Tree] = []
    if method.reads_kl:
        drawn = sorted({i for index in range(len(items)) for i in items.normal_indices(index)})
        rows = reply_trees("normals", [row.ids for row in data.normals], "normal")
        trees += [rows[i] for i in drawn]
    if method.reads_reference:
        trees += reply_trees("negatives", [row.ids for row in data.negatives], "negative")
    return trees


def validation_rows(data: TrainingData) -> list[Tree]:
    """Return the validation normals, on which the KL to the original is measured."""
    return reply_trees("validation_normals", [row.ids for row in data.validation_normals])


def negative_shares(model: Any, items: UnlearnItems, pad_id: int, progress: bool = True) -> tuple[np.ndarray, int]:
    """Return the share of the rounds in which each negative is drawn, by its likelihood, and the tokens read.

    Where there are many more rows than items, rows that an even draw would not have reached soon have a share of 0.
    """
    asked = weighed(items)
    rows = reply_trees("negatives", [items.negatives[n].ids for n in asked])
    shares = np.zeros(len(items.negatives))
    with track("reading the negatives", progress) as report:
        shares[asked] = shares_of(model, rows, pad_id, report)
    return shares, sum(row.tokens for row in rows)


def weighed(items: UnlearnItems) -> list[int]:
    """Return which negatives the original reads, so that their likelihood decides how often each is drawn."""
    count = len(items.negatives)
    return sorted({negative_drawn(n, count, items.seed) for n in range(min(count, 2 * len(items)))})


def shares_of(
    model: Any,
    rows: Sequence[Tree],
    pad_id: int,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, " row"]:
    """Return how often to train on each negative (a one-branch tree): 1 for the likeliest reply, at least `FLOOR`.

    A share is proportional to the geometric mean of the probabilities of the reply's tokens. What the model would
    hardly say needs little unlearning, and steps spent on it are lost to what it does say. The shares are equal where
    every probability is 0.
    """
    log_probs = teacher_forced_likelihood(model, rows, pad_id, progress=progress).log_probs
    chances = np.nan_to_num(np.exp([np.mean(reply) for reply in log_probs]))
    likeliest = float(chances.max())
    return np.maximum(chances / likeliest, FLOOR) if likeliest > 0 else np.ones(len(rows))
