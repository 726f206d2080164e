"""One reply, a few tokens at a time: the reply that `generate` gives for the same prompt and seed.

Two models take turns on one thread, so each reply keeps its own random state between its turns.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from unteach.errors import DataError
from unteach.models.context import context_length
from unteach.models.decoding import roomy_cache
from unteach.models.generate import decoding_settings, default_end, drawn_seed, pad_token, untouched
from unteach.models.reply import ReplyEnd

TURN_SECONDS = 0.05
"""About how long a turn should take; two replies then seem to grow at once."""
_MOST_TOKENS = 16


@dataclass(frozen=True)
class Piece:
    """A reply so far: all its text and the number of its tokens.

    `ended` is empty while the reply grows, then "end" (the model ended it), "length" (it is as long as allowed, or as
    the context has room for) or "stopped".
    """

    text: str
    tokens: int
    ended: str = ""


def reply_in_pieces(
    model: Any,
    tokenizer: Any,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    end: ReplyEnd | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Piece]:
    """Yield the reply to the token ids of a prompt as it grows; the last piece says how it ended.

    The reply is that of `generate`: temperature 0 is greedy, and the same seed draws the same reply. Between pieces
    the model and torch's global random state are as before. `stopped` is asked between turns. A model with a special
    kind of cache gives the reply in one piece.

    Raises DataError for a prompt that leaves no room for a reply.
    """
    context = context_length(model)
    if context is not None and len(prompt) >= context:
        raise DataError(
            f"the prompt has {len(prompt)} tokens and the model's context is {context}, which leaves no room for a "
            "reply; shorten it"
        )
    room = max_new_tokens if context is None else min(max_new_tokens, context - len(prompt))
    end = end or default_end(model, tokenizer)
    pad = pad_token(model, tokenizer, end)
    cache = roomy_cache(model, len(prompt) + room)
    random_state = _RandomState(model, temperature, seed)
    tokens = torch.tensor([list(prompt)], device=model.device)
    size = 1 if cache is not None else room
    new: list[int] = []
    while len(new) < room and not end.reached(tokenizer, new):
        if stopped():
            yield Piece(end.read(tokenizer, new).written, len(new), "stopped")
            return
        settings = decoding_settings(min(size, room - len(new)), pad, end, temperature)
        begun = time.monotonic()
        with untouched(model), torch.no_grad(), random_state.restored():
            tokens = model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                generation_config=settings,
                past_key_values=cache,
                stopping_criteria=StoppingCriteriaList([_StopWhenAsked(stopped)]),
            )
        new = tokens[0, len(prompt) :].tolist()
        if cache is None and stopped():
            continue
        size = _next_size(size, time.monotonic() - begun)
        if len(new) < room and not end.reached(tokenizer, new):
            # A character of several bytes is held back until all of them are there.
            yield Piece(end.read(tokenizer, new).written.rstrip("\ufffd"), len(new))
    reply = end.read(tokenizer, new)
    yield Piece(reply.written, len(reply.ids), "length" if reply.cut else "end")


def _next_size(size: int, seconds: float) -> int:
    """Return how many tokens the next turn makes, from the pace of the last one; at most twice as many."""
    return max(1, min(2 * size, _MOST_TOKENS, int(size * TURN_SECONDS / max(seconds, 1e-6))))


class _StopWhenAsked(StoppingCriteria):
    """Ends generation inside a turn; it matters for models whose one turn is the whole reply."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.stopped(), device=input_ids.device)


class _RandomState:
    """The random state of one reply, made from its seed and kept between its turns."""

    def __init__(self, model: Any, temperature: float, seed: int) -> None:
        self._sampled = temperature > 0
        self._device = model.device if model.device.type == "cuda" else None
        self._seed = drawn_seed(seed)
        self._states: tuple[torch.Tensor, torch.Tensor | None] | None = None

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Give torch this reply's random state inside, and its own again afterwards."""
        if not self._sampled:
            yield
            return
        with torch.random.fork_rng(devices=[self._device] if self._device is not None else []):
            if self._states is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._states[0])
                if self._states[1] is not None and self._device is not None:
                    torch.cuda.set_rng_state(self._states[1], self._device)
            yield
            on_device = torch.cuda.get_rng_state(self._device) if self._device is not None else None
            self._states = torch.get_rng_state(), on_device
