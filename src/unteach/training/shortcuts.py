"""Which shortcuts a model takes without another result: prompt trees, and lower layers that are left out.

Each is tried on the run's first batch; where scores differ, the slow and exact way is taken, and a note says so.
"""

from typing import Any

from unteach.models.ranks import any_rank
from unteach.models.unwrap import unwrapped
from unteach.scoring.lower import LowerStates, lower_agree
from unteach.scoring.reference import AdapterOff, Reference
from unteach.scoring.score import tree_limit, trees_agree
from unteach.scoring.trees import TreeBatch


class Shortcuts:
    """What was found out about one model.

    `plain_rows` says whether every reply must be a row of its own; None until the first batch of trees has settled it.
    `lower` has the states below the trained layers, None where every layer runs. What is given up is added to `notes`.
    """

    def __init__(self, model: Any, notes: list[str]) -> None:
        self.plain_rows: bool | None = None
        self.lower: LowerStates | None = None
        self._notes = notes
        self._lower_tried = False
        self._limit = tree_limit(model)

    def laid_out(self, model: Any, batch: TreeBatch) -> TreeBatch:
        """Return the batch, laid out as plain rows where this model does not score trees correctly.

        The first batch of trees settles that for the run; a sliding window decides batch by batch.
        """
        if batch.is_plain:
            return batch
        if self.plain_rows is None:
            agree, difference = trees_agree(model, batch)
            self.plain_rows = any_rank(not agree)
            if self.plain_rows:
                self._notes.append(
                    f"{_name(model)} does not score prompt trees as it scores plain rows (difference {difference:.2g} "
                    "nats): every reply is computed as a row of its own, which is slower and exact"
                )
        too_long = self._limit is not None and max(tree.places for tree in batch.trees) > self._limit
        return batch.plain() if self.plain_rows or too_long else batch

    def try_lower(self, model: Any, batch: TreeBatch, reference: Reference | None) -> None:
        """Before the first step, give `lower` up where scores differ with it, for the reference too."""
        if self.lower is None or self._lower_tried:
            return
        self._lower_tried = True
        agree, difference = lower_agree(model, batch, self.lower)
        if not any_rank(not agree):
            return
        self.lower = None
        if isinstance(reference, AdapterOff):
            reference.lower = None
        self._notes.append(
            f"{_name(model)} does not score alike where its lower layers are left out (difference {difference:.2g} "
            "nats): they run in every step, which is slower and exact"
        )

    def skipped(self) -> int:
        """Return how many tokens the lower layers did not read again since the last call."""
        if self.lower is None:
            return 0
        skipped, self.lower.skipped = self.lower.skipped, 0
        return skipped


def _name(model: Any) -> str:
    return type(unwrapped(model)).__name__
