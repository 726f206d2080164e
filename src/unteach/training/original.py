"""What training asks of the original before it begins."""

from typing import Any

from unteach.errors import ConfigError
from unteach.objectives.methods import Method
from unteach.scoring.trees import Tree, reply_trees
from unteach.training.config import UnlearnConfig
from unteach.training.data import TrainingData
from unteach.training.dataset import UnlearnItems
from unteach.training.preconditioning import hindrance


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
    """Return the validation normals, on which the KL to the original is watched."""
    return reply_trees("validation_normals", [row.ids for row in data.validation_normals])


def is_preconditioned(model: Any, args: UnlearnConfig, method: Method, normals: int, own_optimizer: bool) -> bool:
    """Return whether steps are preconditioned: where the user or the method asks for it, and it is possible.

    Raises ConfigError where the user asks for it and it is not possible.
    """
    wanted = args.preconditioning
    if not (method.preconditioning if wanted is None else wanted):
        return False
    reason = hindrance(model, args, normals, own_optimizer)
    if reason and wanted:
        raise ConfigError(f"--preconditioning: {reason}; leave it out")
    return reason is None
