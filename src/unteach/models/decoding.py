"""Decoding of one batch of prompts, with a key-value cache that is filled in place.

Transformers' own cache is copied whole at every new token, which on a CPU takes longer than all arithmetic together.
Ours is allocated at full length and filled in place. Decoding runs in stretches of a few tokens; after each of them,
rows that have ended leave the batch, so that short replies cost nothing while long ones continue. What all prompts of a
batch begin with, such as the system message of a chat template, is read once.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from unteach.models.beginning import shared_beginning
from unteach.models.unwrap import runs_alone

STRETCH = 16
"""New tokens after which rows that have ended leave the batch."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, [batch, head, position, width], as views into buffers that have room to grow.

    Differs: `DynamicLayer` makes a new, longer tensor at every token.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new positions and return all of them."""
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
        """Return the buffers; allocate new ones where they are too short or rows were taken out since."""
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
        """Tell whether keys and values still lie in the buffers: selecting or reordering rows makes copies."""
        assert self._buffers is not None
        held = (self.keys, self.values)
        return all(
            part.shape[0] == buffer.shape[0] and (part.numel() == 0 or part.data_ptr() == buffer.data_ptr())
            for part, buffer in zip(held, self._buffers, strict=True)
        )


def continue_batch(
    model: Any,
    batch: Sequence[Sequence[int]],
    pad: int,
    settings: GenerationConfig,
    ended: Callable[[Sequence[int]], bool],
) -> list[list[int]]:
    """Return the new token ids of every row, at most `max_new_tokens`; what follows a row's end means nothing.

    `ended` tells whether new tokens hold the end of a reply.

    Rows are padded on the left, after what all of them begin with. Models with another kind of cache (recurrent states,
    a cache of their own) run through Transformers' `generate` in one piece, with the cache they have.
    """
    width = max(len(prompt) for prompt in batch)
    cache = roomy_cache(model, width + settings.max_new_tokens)
    shared = shared_beginning(batch) if _is_whole(cache) else 0
    ids = np.full((len(batch), width), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(batch):
        for part, first in ((prompt[:shared], 0), (prompt[shared:], width - len(prompt) + shared)):
            ids[row, first : first + len(part)] = part
            mask[row, first : first + len(part)] = 1
    tokens, attended = (torch.from_numpy(part).to(model.device) for part in (ids, mask))
    if cache is not None and shared:
        model(input_ids=tokens[:1, :shared], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(batch))
    together = {"synced_gpus": not runs_alone(model)}  # ranks that run the model together go on until all have ended
    if cache is None:
        output = model.generate(input_ids=tokens, attention_mask=attended, generation_config=settings, **together)
        new_tokens: list[list[int]] = output[:, width:].tolist()
        return new_tokens
    replies: list[list[int]] = [[] for _ in batch]
    rows = list(range(len(batch)))
    for stretch in _stretches(settings):
        before = tokens.shape[1]
        tokens = model.generate(
            input_ids=tokens, attention_mask=attended, generation_config=stretch, past_key_values=cache, **together
        )
        going = []
        for place, new in enumerate(tokens[:, before:].tolist()):
            replies[rows[place]] += new
            if not ended(replies[rows[place]]):
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
    """Return an empty cache for rows of up to `room` tokens; None for models with another kind of cache.

    Layers with a sliding window keep Transformers' own cache, which stays short.
    """
    if not getattr(model, "_supports_default_dynamic_cache", lambda: False)():
        return None
    cache = DynamicCache(config=model.config)
    kinds = {type(layer) for layer in cache.layers}
    if not kinds or kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
        return None
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _is_whole(cache: DynamicCache | None) -> bool:
    """Return whether every layer keeps all positions, so that a beginning can be put in first."""
    return cache is not None and all(isinstance(layer, RoomyLayer) for layer in cache.layers)


def _stretches(settings: GenerationConfig) -> Iterator[GenerationConfig]:
    """Yield the settings of each stretch of new tokens."""
    for start in range(0, settings.max_new_tokens, STRETCH):
        part = copy.copy(settings)
        part.max_new_tokens = min(STRETCH, settings.max_new_tokens - start)
        yield part
