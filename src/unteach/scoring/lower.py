"""States below the layers that are trained: computed once, kept, and put in where they would be computed again.

Where only upper layers are trained, what enters the first of them never changes. So it is computed once for each prompt
and each reply, and a step runs the upper layers alone. Log-probabilities and gradients are those of the whole model, up
to rounding.
"""

from collections.abc import Container, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unteach.models.layers import decoder_layers, first_trained
from unteach.models.unwrap import unwrapped
from unteach.scoring.agreement import alike
from unteach.scoring.score import LastHiddenStates, last_hidden_states, model_inputs, score
from unteach.scoring.trees import Branch, Tree, TreeBatch, lay_out

MOST_BYTES = 2 * 2**30
"""Most memory for one store of states; what finds no room is computed each time."""

Part = tuple[tuple[int, ...], tuple[int, ...] | None]
"""Names a part of a tree: the prompt, or the prompt and the tokens of a reply that are read after it."""


Name = TypeVar("Name", bound=Hashable)


class Kept(dict[Name, Tensor]):
    """States in memory, on the CPU, by what they are of."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def keep(self, name: Name, states: Tensor) -> None:
        """Keep a copy, while there is room."""
        size = states.numel() * states.element_size()
        if name not in self and self._bytes + size <= MOST_BYTES:
            self[name] = states.detach().cpu().clone()
            self._bytes += size


class _Reached(Exception):
    """Ends a forward pass after the lower layers."""


class LowerStates:
    """What enters layer `first` for any batch, from memory where it was computed before.

    Weights below that layer must not change while this is used. `skipped` counts the tokens that were not read by the
    lower layers again.
    """

    def __init__(self, model: Any, first: int) -> None:
        self._model, self._lower = unwrapped(model), decoder_layers(model)[1][:first]
        self._kept = Kept[Part]()
        self._as_tuple = False
        self.skipped = 0

    @classmethod
    def of(cls, model: Any) -> "LowerStates | None":
        """Return the states below what is trained; None where the lowest layer is trained."""
        first = first_trained(model)
        return cls(model, first) if first else None

    @contextmanager
    def put_in(self, batch: TreeBatch) -> Iterator[None]:
        """Within the block, the lower layers compute nothing: what the model reads enters above them, as laid out."""
        states = self(batch)
        if _checkpoints(self._model) and torch.is_grad_enabled():
            states.requires_grad_()  # or a reentrant checkpoint would have no gradient

        def put(*_: Any, **__: Any) -> Any:
            return (states,) if self._as_tuple else states

        before = {layer: vars(layer).get("forward") for layer in self._lower}
        try:
            for layer in self._lower:
                layer.forward = put
            yield
        finally:
            for layer, own in before.items():
                if own is None:
                    del layer.forward
                else:
                    layer.forward = own

    @torch.no_grad()
    def __call__(self, batch: TreeBatch) -> Float[Tensor, "row position width"]:
        """Return what enters the first trained layer at every position of a batch; zeros on padding."""
        lacking = [lack for tree in batch.trees if (lack := _lacking(tree, self._kept)) is not None]
        found = dict(self._read(lacking, batch)) if lacking else {}
        self.skipped += batch.token_count - sum(tree.places for tree in lacking)
        pieces = [[found.get(part, self._kept.get(part)) for part in _parts(tree)] for tree in batch.trees]
        like, shape = pieces[0][0], batch.input_ids.shape
        assert like is not None
        states = torch.zeros(*shape, like.shape[-1], dtype=like.dtype, device=batch.input_ids.device)
        for number, (tree, piece) in enumerate(zip(batch.trees, pieces, strict=True)):
            row, columns = _places(batch, number)
            own = torch.cat([part for part in piece if part is not None]).to(states.device)
            assert len(own) == tree.places
            states[row, columns] = own[batch.shared :]
            states[row, : batch.shared] = own[: batch.shared]
        return states

    def _read(self, trees: Sequence[Tree], batch: TreeBatch) -> Iterator[tuple[Part, Tensor]]:
        """Run the lower layers over trees, keep their states while there is room, and return them by part."""
        packed = lay_out(trees, batch.pad_id, batch.packed).to(batch.input_ids.device)
        states = self._run(packed)
        for number, tree in enumerate(trees):
            row, columns = _places(packed, number)
            own = torch.cat([states[row, : packed.shared], states[row, columns]])
            sizes = [len(tree.prompt_ids), *(len(branch.reply_ids) - 1 for branch in tree.branches)]
            for part, piece in zip(_parts(tree), own.split(sizes), strict=True):
                self._kept.keep(part, piece)
                yield part, piece

    def _run(self, batch: TreeBatch) -> Tensor:
        """Return what leaves the lower layers at every position."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, __: Any, output: Any) -> None:
            self._as_tuple = isinstance(output, tuple)
            caught.append(output[0] if isinstance(output, tuple) else output)
            raise _Reached

        handle = self._lower[-1].register_forward_hook(catch)
        try:
            self._model(**model_inputs(self._model, batch))
        except _Reached:
            pass
        finally:
            handle.remove()
        return caught[0]


def _parts(tree: Tree) -> list[Part]:
    """Return the parts of a tree in the order of its places in a row."""
    carriers = tree.carriers()
    carrying = [branch for number, branch in enumerate(tree.branches) if carriers[number] == number]
    return [(tree.prompt_ids, None), *((tree.prompt_ids, branch.reply_ids[:-1]) for branch in carrying)]


def _lacking(tree: Tree, kept: Container[Part]) -> Tree | None:
    """Return the tree with the branches whose states are not kept; None where all are."""
    parts = _parts(tree)
    lacking = [part for part in parts[1:] if part not in kept]
    if not lacking and parts[0] in kept:
        return None
    branches = tuple(Branch("reply", (*(read or ()), 0)) for _, read in lacking) or (Branch("reply", (0,)),)
    return Tree(tree.prompt_ids, branches, tree.key)


def tokens_kept(trees: Iterable[Tree]) -> int:
    """Return how many tokens of trees, scored in this order, the lower layers need not read again."""
    kept, count = set[Part](), 0
    for tree in trees:
        lack = _lacking(tree, kept)
        count += tree.places - (lack.places if lack else 0)
        kept.update(_parts(tree))
    return count


def _places(batch: TreeBatch, number: int) -> tuple[int, Tensor]:
    """Return the row of a tree and the columns that are its own."""
    rows, columns = (batch.members == number).nonzero(as_tuple=True)
    return int(rows[0]), columns


def hidden_states(model: Any, batch: TreeBatch, lower: LowerStates | None) -> LastHiddenStates:
    """Return what `last_hidden_states` does, without running the lower layers again where `lower` has their states."""
    with lower.put_in(batch) if lower else nullcontext():
        return last_hidden_states(model, batch)


@torch.no_grad()
def lower_agree(model: Any, batch: TreeBatch, lower: LowerStates) -> tuple[bool, float]:
    """Return whether a batch is scored alike with kept states, and the largest difference at a token, in nats.

    They differ for models whose upper layers read more than what the layer below hands them.
    """
    left = score(hidden_states(model, batch, lower), batch.targets).log_probs
    return alike(left, score(last_hidden_states(model, batch), batch.targets).log_probs, model)


def _checkpoints(model: nn.Module) -> bool:
    """Return whether activations are computed again in the backward pass."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
