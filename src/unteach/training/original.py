"""Which reference to the original a run takes, and what it must hold of it."""

import hashlib
from collections.abc import Sequence
from typing import Any

from unteach.cache import cache_directory
from unteach.models.unwrap import unwrapped
from unteach.objectives.methods import Method
from unteach.progress import track
from unteach.scoring.reference import AdapterOff, CachedStates, FrozenCopy, Reference, one_branch
from unteach.scoring.trees import Tree
from unteach.training.config import UnlearnConfig
from unteach.training.dataset import UnlearnItems
from unteach.training.sets import TrainingSets


def choose_reference(
    model: Any,
    args: UnlearnConfig,
    method: Method,
    sets: TrainingSets,
    items: UnlearnItems,
    held: Sequence[Tree],
    budget: bool,
    key: str,
) -> Reference | None:
    """Return the cheapest reference that serves, or None where nothing reads it.

    `held` are the held-out normal rows, which a utility `budget` reads; `key` is the fingerprint of the original.
    """
    if not (method.reads_kl or method.reads_reference or budget):
        return None
    choice = args.reference
    if choice == "auto":
        choice = "adapter_off" if hasattr(unwrapped(model), "peft_config") else "cached"
    if choice == "adapter_off":
        return AdapterOff(model)
    if choice == "frozen":
        return FrozenCopy.of(model)
    return _cached_states(model, args, [*held, *_trained_on(method, sets, items)], key)


def _trained_on(method: Method, sets: TrainingSets, items: UnlearnItems) -> list[Tree]:
    """Return the rows this run can draw of which the method reads the original."""
    trees: list[Tree] = []
    if method.reads_kl:
        drawn = sorted({i for index in range(len(items)) for i in items.normal_indices(index)})
        rows = one_branch([(row.prompt_ids, row.reply_ids) for row in sets.normals], "normal")
        trees += [rows[i] for i in drawn]
    if method.reads_reference:
        trees += one_branch([(row.prompt_ids, row.reply_ids) for row in sets.negatives], "negative")
    return trees


def _cached_states(model: Any, args: UnlearnConfig, trees: Sequence[Tree], key: str) -> CachedStates:
    """Cache the original's states of these rows."""
    content = hashlib.sha256(repr([(t.key, t.prompt_ids, t.branches) for t in trees]).encode()).hexdigest()
    name = f"{key}-{str(model.dtype).removeprefix('torch.')}-{content[:16]}"
    with args.main_process_first(desc="reference cache"), track("reference", args.progress) as progress:
        return CachedStates.build(model, trees, cache_directory() / "reference", name, progress=progress)
