"""The original's last hidden states in files: how they are computed, and how they are laid out."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unteach.errors import ModelError
from unteach.models.beginning import shared_beginning
from unteach.models.unwrap import unwrapped
from unteach.progress import OnProgress
from unteach.scoring.agreement import tree_limit, trees_agree
from unteach.scoring.head import Head
from unteach.scoring.score import last_hidden_states
from unteach.scoring.trees import Tree, lay_out, packed_tokens

STATES, INDEX = "states.bin", "index.json"
"""The files of a directory of states: all states one after the other, and what they are of."""
LAYOUT = 2
"""What they hold, by number: states that an earlier version has kept under another one are not read."""
BATCH_TOKENS = 8192
"""Tokens of a batch that is read, which bound the memory of a forward pass."""
FEW = 8
"""Rows on which something is tried that must hold for all."""


def batches_of_states(rows: Sequence[Tree], batch_tokens: int = BATCH_TOKENS) -> list[list[Tree]]:
    """Return the rows in batches of about so many tokens, the longest first."""
    ordered, chunks = sorted(rows, key=lambda tree: -tree.tokens), list[list[Tree]]()
    while ordered:
        count = max(1, batch_tokens // ordered[0].tokens)
        chunks.append(ordered[:count])
        ordered = ordered[count:]
    return chunks


def few_of(rows: Sequence[Tree]) -> Sequence[Tree]:
    """Return a few rows, from all parts of the list."""
    return rows[:: max(1, len(rows) // FEW)][:FEW]


def may_pack(model: Any, rows: Sequence[Tree]) -> bool:
    """Return whether rows may be packed, so that what all prompts begin with is read once: it is tried on a few."""
    few, limit = few_of(rows), tree_limit(model)
    if not few or not shared_beginning([tree.prompt_ids for tree in few]):
        return False
    if limit is not None and max(tree.places for tree in rows) > limit:
        return False
    return trees_agree(model, lay_out(few, packed=True).to(next(unwrapped(model).parameters()).device))[0]


@torch.no_grad()
def states_of(model: Any, packed: bool, chunk: Sequence[Tree]) -> Tensor:
    """Return the last hidden states of a batch's reply tokens, on the CPU."""
    batch = lay_out(chunk, packed=packed)
    original = last_hidden_states(model, batch.to(next(unwrapped(model).parameters()).device))
    if not isinstance(original.head, Head):
        raise ModelError(
            f"{type(unwrapped(model)).__name__} changes its logits after the head in a way that cannot be "
            "cached; use --reference frozen, or --lora with --reference adapter_off"
        )
    return original.states.detach().cpu().contiguous()


def write_states(
    chunks: Sequence[Sequence[Tree]],
    packed: bool,
    computed: Iterable[Tensor],
    directory: Path,
    progress: OnProgress | None,
) -> None:
    """Write the states row after row, where those of each row begin, and how many tokens were read for all."""
    places, written, done, width, dtype = [], 0, 0, 0, torch.float32
    with open(directory / STATES, "wb") as file:
        for chunk, states in zip(chunks, computed, strict=True):
            width, dtype = states.shape[1], states.dtype
            file.write(states.view(torch.uint8).numpy().tobytes())
            for tree in chunk:
                length = len(tree.branches[0].reply_ids)
                places.append((*tree.key, written, length))
                written += length
            done += len(chunk)
            if progress:
                progress(done, sum(map(len, chunks)))
    read = sum(packed_tokens(chunk) if packed else sum(tree.places for tree in chunk) for chunk in chunks)
    kind = str(dtype).removeprefix("torch.")
    index = {"tokens": written, "width": width, "dtype": kind, "read": read, "rows": places}
    (directory / INDEX).write_text(json.dumps(index))


def plain_dtype(dtype: torch.dtype) -> str:
    """Return a numpy type of the same size: numpy has no bfloat16, so states are stored as plain bits."""
    return {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}[dtype.itemsize]
