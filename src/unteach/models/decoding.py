"""Continue one batch of prompts: a key-value cache with room in it, and rows that have ended leave the batch.

Transformers' own cache is copied whole at every new token, which on a CPU takes longer than all arithmetic together.
Ours is given its full length at once and filled in place. And where some replies of a batch are long, the short ones
need not be carried along: decoding goes on in stretches, with the rows between two of them that have not ended.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

STRETCH = 16
"""New tokens between two looks at which rows have ended."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, [batch, head, position, width], as views into buffers that have room to grow.

    Differs: `DynamicLayer` makes a new, longer tensor at every token.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new positions behind those already there and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        keys, values = self._with_room(start, end, key_states, value_states)
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _with_room(self, start: int, end: int, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the buffers, made anew where they are too short or where rows were taken out since."""
        if self._buffers is not None and self._buffers[0].shape[2] >= end and self._is_view():
            return self._buffers
        room = max(self.room, end)
        made = []
        for states, held in ((key_states, self.keys), (value_states, self.values)):
            buffer = states.new_empty((*states.shape[:2], room, states.shape[3]))
            if start:
                buffer[:, :, :start] = held
            made.append(buffer)
        self._buffers = made[0], made[1]
        return self._buffers

    def _is_view(self) -> bool:
        """Whether what is held still lies in the buffers: selecting or reordering rows makes copies."""
        assert self._buffers is not None
        held = (self.keys, self.values)
        return all(
            part.shape[0] == buffer.shape[0] and (part.numel() == 0 or part.data_ptr() == buffer.data_ptr())
            for part, buffer in zip(held, self._buffers, strict=True)
        )


def continue_batch(
    model: Any, batch: Sequence[Sequence[int]], pad: int, settings: GenerationConfig, ends: Sequence[int]
) -> list[list[int]]:
    """Return the new token ids of every row: up to and with the first of `ends`, or `settings.max_new_tokens`.

    Rows are padded on the left. Models whose cache is of another kind (recurrent states, a cache of their own) run
    through `generate` in one piece, with whatever cache they have.
    """
    width = max(len(prompt) for prompt in batch)
    ids = np.full((len(batch), width), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(batch):
        ids[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    tokens, attended = (torch.from_numpy(part).to(model.device) for part in (ids, mask))
    cache = roomy_cache(model, width + settings.max_new_tokens)
    if cache is None:
        output = model.generate(input_ids=tokens, attention_mask=attended, generation_config=settings)
        return [_up_to_end(row, ends) for row in output[:, width:].tolist()]
    replies: list[list[int]] = [[] for _ in batch]
    rows = list(range(len(batch)))
    for stretch in _stretches(settings):
        before = tokens.shape[1]
        tokens = model.generate(
            input_ids=tokens, attention_mask=attended, generation_config=stretch, past_key_values=cache
        )
        going = []
        for place, new in enumerate(tokens[:, before:].tolist()):
            kept = _up_to_end(new, ends)
            replies[rows[place]] += kept
            if kept[-1] not in ends:
                going.append(place)
        if not going:
            break
        attended = torch.nn.functional.pad(attended, (0, tokens.shape[1] - before), value=1)
        if len(going) < len(rows):
            chosen = torch.tensor(going, device=tokens.device)
            tokens, attended = tokens[chosen], attended[chosen]
            cache.batch_select_indices(chosen)
            rows = [rows[place] for place in going]
    return replies


def roomy_cache(model: Any, room: int) -> DynamicCache | None:
    """Return an empty cache for rows of up to `room` tokens; None where the model's cache is not known to be plain.

    Layers with a sliding window keep transformers' own, which stays short.
    """
    if not getattr(model, "_supports_default_dynamic_cache", lambda: False)():
        return None
    cache = DynamicCache(config=model.config)
    kinds = {type(layer) for layer in cache.layers}
    if not kinds or kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
        return None
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _stretches(settings: GenerationConfig) -> Iterator[GenerationConfig]:
    """Part the new tokens of a batch into stretches."""
    for start in range(0, settings.max_new_tokens, STRETCH):
        part = copy.copy(settings)
        part.max_new_tokens = min(STRETCH, settings.max_new_tokens - start)
        yield part


def _up_to_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: stop + 1]
