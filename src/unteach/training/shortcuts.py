"""Which shortcuts a model takes without another result: prompt trees, lower layers left out, compiled layers.

Each is tried on the run's first batch; where scores differ, the slow and exact way is taken, and a note says so.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from unteach.errors import ConfigError
from unteach.models.ranks import any_rank
from unteach.models.unwrap import unwrapped
from unteach.scoring.agreement import tree_limit, trees_agree
from unteach.scoring.compiled import Compiled, compiled_agree
from unteach.scoring.lower import LowerStates, lower_agree
from unteach.scoring.reference import AdapterOff, Reference
from unteach.scoring.trees import TreeBatch
from unteach.text.escape import inert_line


class Shortcuts:
    """What was found out about one model.

    `plain_rows` says whether every reply must be a row of its own; None until the first batch of trees has settled it.
    `lower` has the states below the trained layers, None where every layer runs. `compiled` has the compiled layers,
    None where they run as they are. What is given up is added to `notes`.
    """

    def __init__(self, model: Any, notes: list[str]) -> None:
        self.plain_rows: bool | None = None
        self.lower: LowerStates | None = None
        self._notes = notes
        self.compiled: Compiled | None = None
        self._lower_tried = self._compiled_tried = False
        self._step: ExitStack | None = None
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

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold a forward and its backward pass: what `start_compiled` starts within the block ends with it."""
        try:
            with ExitStack() as self._step:
                yield
        finally:
            self._step = None

    def start_compiled(self, model: Any, batch: TreeBatch) -> None:
        """Run the layers compiled until the `step` ends; at the first step, give that up where scores differ.

        Raises ConfigError where torch.compile fails.
        """
        if self.compiled is None or self._step is None:
            return
        if not self._compiled_tried:
            from torch._dynamo.exc import TorchDynamoException  # slow to import

            self._compiled_tried = True
            try:
                agree, difference = compiled_agree(model, batch, self.compiled, self.lower)
            except TorchDynamoException as error:
                reason = inert_line(str(error).strip() or type(error).__name__, 200)
                raise ConfigError(f"--compile: torch.compile failed here ({reason}); leave it out") from None
            if not agree:
                self.compiled = None
                self._notes.append(
                    f"{_name(model)} does not score alike with compiled layers (difference {difference:.2g} nats): "
                    "--compile was left out"
                )
                return
        self._step.enter_context(self.compiled.on())

    def skipped(self) -> int:
        """Return how many tokens the lower layers did not read again since the last call."""
        if self.lower is None:
            return 0
        skipped, self.lower.skipped = self.lower.skipped, 0
        return skipped


def _name(model: Any) -> str:
    return type(unwrapped(model)).__name__
