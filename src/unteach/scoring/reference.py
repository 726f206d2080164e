"""The original model, behind one call: what it predicts at the reply tokens of a batch.

There are three kinds, the cheapest first: the same weights with the adapter switched off; last hidden states that are
computed once and kept on disk; a frozen copy in memory. None is made for a loss that does not read it.
"""

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from unteach.disk.cache import Cache, cache_directory
from unteach.errors import ModelError
from unteach.models.fingerprint import config_facts
from unteach.models.ranks import any_rank, first_rank_takes, on_first_rank, seen_by_all, shared_over_ranks
from unteach.models.sharding import gathered, sharded_copy
from unteach.models.unwrap import is_sharded, unwrapped
from unteach.progress import OnProgress
from unteach.scoring.head import Head, Logits, frozen_head, head_of
from unteach.scoring.lower import Kept, LowerStates, hidden_states
from unteach.scoring.score import LastHiddenStates, last_hidden_states, score
from unteach.scoring.states_file import (
    BATCH_TOKENS,
    INDEX,
    LAYOUT,
    STATES,
    batches_of_states,
    few_of,
    may_pack,
    plain_dtype,
    states_of,
    write_states,
)
from unteach.scoring.trees import Tree, TreeBatch, lay_out

MOST_BYTES = 16 * 2**30
"""Largest size of all cached states together."""
SAME, SAME_IN_HALF = 1e-3, 0.05
"""Largest KL of the original to itself, nats per token, in 32 and in 16 bits: rounding, and no more."""


class Reference:
    """Gives the original's last hidden states for a batch whose trees have one branch each (see `TreeBatch.only`).

    `tokens_read` counts the tokens that the original has read so far, on each process where `on_every_rank`.
    """

    tokens_read = 0
    on_every_rank = True

    def knows(self, rows: Sequence[Tree]) -> bool:
        """Whether it has the states of all these rows; a model in memory can read any row."""
        return True

    def __call__(self, batch: TreeBatch) -> LastHiddenStates:
        raise NotImplementedError


class AdapterOff(Reference):
    """The live model with its adapter switched off: bit-equal to the original, and no memory at all.

    Call it before the live forward of the same step: switching adapters between a forward and its backward loses
    gradients under activation checkpointing. With `lower`, which makes forwards equal up to rounding only, a row that
    was read before is not read again.
    """

    def __init__(self, model: Any, lower: LowerStates | None = None) -> None:
        self.model, self.lower = model, lower
        self._kept = Kept[Tree]()

    @torch.no_grad()
    def __call__(self, batch: TreeBatch) -> LastHiddenStates:
        read = dict[Tree, torch.Tensor]()
        lacking = [tree for tree in batch.trees if self.lower is None or tree not in self._kept]
        if lacking:
            some = len(lacking) < len(batch.trees)
            part = lay_out(lacking, batch.pad_id, batch.packed).to(batch.input_ids.device) if some else batch
            self.tokens_read += part.token_count
            with unwrapped(self.model).disable_adapter():
                original = hidden_states(self.model, part, self.lower)
            head = self._head() if isinstance(original.head, Head) else original.head
            if not isinstance(head, Head) or self.lower is None:  # nothing is kept
                return LastHiddenStates(original.states, head)
            sizes = [len(tree.branches[0].reply_ids) - tree.branches[0].lead for tree in lacking]
            read = dict(zip(lacking, original.states.split(sizes), strict=True))
        pieces = [(read[tree] if tree in read else self._kept[tree]).to(batch.input_ids.device) for tree in batch.trees]
        for tree, states in read.items():
            self._kept.keep(tree, states)
        return LastHiddenStates(torch.cat(pieces), self._head())

    def _head(self) -> Head:
        layer: Any = (head := head_of(self.model)).layer  # the adapter may have wrapped it, or trains a copy beside it
        layer = getattr(layer, "base_layer", getattr(layer, "original_module", layer))
        return Head(layer, head.scale, head.soft_cap)


class FrozenCopy(Reference):
    """A second model in memory, a copy of `model` as it is now: simple, at twice the weights. Only on request.

    It computes in the precision (autocast) in which it was made.
    """

    def __init__(self, model: Any) -> None:
        base = unwrapped(model)
        self.model = (sharded_copy(base) if is_sharded(base) else copy.deepcopy(base)).eval().requires_grad_(False)
        self._autocast = _autocast_dtype(next(self.model.parameters()).device.type)

    @torch.no_grad()
    def __call__(self, batch: TreeBatch) -> LastHiddenStates:
        self.tokens_read += batch.token_count
        with torch.autocast(batch.input_ids.device.type, self._autocast, enabled=self._autocast is not None):
            return last_hidden_states(self.model, batch)


class CachedStates(Reference):
    """The original's last hidden states of a set of rows, on disk, and a frozen copy of its head.

    They are exact, in the precision (dtype and autocast) in which they are computed. They equal the live
    model's to the last bit only in batches of the same shape: in bfloat16, KL begins near 0 and not at it. States are
    memory-mapped: a step reads only its own rows.
    `tokens_read` counts the tokens that computing them takes, also where an earlier run computed them.
    """

    on_every_rank = False  # one process computes them, the others read

    def __init__(self, directory: Path, head: Logits) -> None:
        self.directory, self._head = directory, head
        index = json.loads((directory / INDEX).read_text())
        self.tokens_read = index["read"]
        self._places = {(split, row): (start, length) for split, row, start, length in index["rows"]}
        self._dtype = getattr(torch, index["dtype"])
        shape = (index["tokens"], index["width"])
        self._states = np.memmap(directory / STATES, dtype=plain_dtype(self._dtype), mode="r", shape=shape)

    @classmethod
    def build(
        cls,
        model: Any,
        rows: Sequence[Tree],
        cache: Cache,
        key: str,
        batch_tokens: int = BATCH_TOKENS,
        progress: OnProgress | None = None,
    ) -> "CachedStates":
        """Compute the states of one-branch trees with the model as it is now, or reuse those kept under `key`.

        `key` must name model and rows. What all prompts of a batch begin with is read once, where the model scores
        packed rows as it scores others. States that do not check are computed again. Raises OutputError when the disk
        is full, and ModelError where states and head do not give the model's logits.
        """
        head = frozen_head(model)
        kept, opened = on_first_rank(cache.find, key), None
        with contextlib.suppress(OSError):  # another run may have removed it since
            opened = cls(kept, head) if kept else None
        if not any_rank(opened is None):
            return cast(CachedStates, opened)
        chunks = batches_of_states(rows, batch_tokens)

        with gathered(model):
            packed = may_pack(model, rows)

            def keep(computed: Iterable[Tensor]) -> Path:
                return cache.make(key, lambda directory: write_states(chunks, packed, computed, directory, progress))

            made = first_rank_takes(keep, shared_over_ranks(partial(states_of, model, packed), chunks, model))
        with seen_by_all(made):
            return cls(made, head)

    def knows(self, rows: Sequence[Tree]) -> bool:
        """Whether the states of all these rows were computed."""
        return all(row.key in self._places for row in rows)

    def __call__(self, batch: TreeBatch) -> LastHiddenStates:
        """Read the states of the batch's trees from disk."""
        pieces = []
        for tree in batch.trees:
            start, length = self._places[tree.key]
            pieces.append(np.array(self._states[start : start + length]))
        states = torch.from_numpy(np.concatenate(pieces)).view(self._dtype)
        return LastHiddenStates(states.to(batch.input_ids.device), self._head)


def choose_reference(
    model: Any,
    choice: str,
    rows: Callable[[], Sequence[Tree]],
    fingerprint: str,
    progress: OnProgress | None = None,
    lower: LowerStates | None = None,
) -> Reference:
    """Return a reference to the model as it is now, before it is trained.

    `choice` is one of `REFERENCES`; "auto" switches the adapter off where there is one, and else takes cached states.
    `rows` returns the one-branch trees that will be asked for; only cached states need them. `fingerprint` names the
    model's weights. `lower` spares an adapter's model the layers that are not trained.
    """
    if choice == "auto":
        choice = "adapter_off" if hasattr(unwrapped(model), "peft_config") else "cached"
    if choice == "adapter_off":
        return AdapterOff(model, lower)
    if choice == "frozen":
        return FrozenCopy(model)
    return cached_states(model, rows(), fingerprint, progress)


def cached_states(
    model: Any, rows: Sequence[Tree], fingerprint: str, progress: OnProgress | None = None
) -> CachedStates:
    """Compute the last hidden states of rows, or take them from the user's cache, where other runs find them."""
    facts = LAYOUT, [(row.key, row.prompt_ids, row.branches) for row in rows], config_facts(model)
    content = hashlib.sha256(repr(facts).encode()).hexdigest()
    precision = "-".join(str(kind).removeprefix("torch.") for kind in _kinds(model))
    name = f"{fingerprint}-{precision}-{content[:16]}"
    cache = Cache(cache_directory() / "reference", MOST_BYTES)
    states = CachedStates.build(model, rows, cache, name, progress=progress)
    require_itself(_kl_to_itself(model, rows, states), model, states)
    return states


def require_itself(kl: float, model: Any, states: CachedStates) -> None:
    """Raise ModelError unless the original's KL to itself, in nats per token, is 0 up to rounding.

    Nothing that is measured or trained against these states is worth anything otherwise.
    """
    exact = all(kind.itemsize >= 4 for kind in _kinds(model))
    if not kl <= (SAME if exact else SAME_IN_HALF):
        raise ModelError(
            f"{states.directory}: the states kept there are not those of this model: its KL to itself is {kl:.2g} nats "
            "per token; remove the directory and run again, or use --reference frozen"
        )


@torch.no_grad()
def _kl_to_itself(model: Any, rows: Sequence[Tree], states: CachedStates) -> float:
    """Return the mean KL over the tokens of a few rows, in nats."""
    few = few_of(rows)
    if not few:
        return 0.0
    batch = lay_out(few).to(next(unwrapped(model).parameters()).device)
    kl = score(last_hidden_states(model, batch), batch.targets, states(batch)).kl
    return 0.0 if kl is None else float(kl.mean())


def _autocast_dtype(device: str) -> torch.dtype | None:
    """Return what autocast computes in here, None where it is off."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _kinds(model: Any) -> list[torch.dtype]:
    """Return what the model computes in: its weights' dtype and, where it is on, that of autocast."""
    autocast = _autocast_dtype(next(unwrapped(model).parameters()).device.type)
    return [model.dtype] if autocast is None else [model.dtype, autocast]
