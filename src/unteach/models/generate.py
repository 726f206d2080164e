"""Replies of a model to encoded prompts: batched, seeded, and with the model left as it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from unteach.errors import ConfigError, DataError
from unteach.models.context import context_length
from unteach.models.decoding import continue_batch
from unteach.models.ranks import shared_over_ranks
from unteach.models.reply import Reply, ReplyEnd, end_token_ids, named_end
from unteach.models.sharding import gathered
from unteach.models.vocabulary import embedding_rows, pad_within
from unteach.progress import OnProgress

Prompts = Sequence[Sequence[int]]

BATCH_TOKENS = 32_768
"""Most tokens of prompts and replies in one batch, padding included: they bound the memory of the key-value cache."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Prompts,
    *,
    max_new_tokens: int,
    end: ReplyEnd | None = None,
    batch_size: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> list[Reply]:
    """Return the model's reply to every prompt, in the order given.

    `prompts` are token ids. `end` says where replies end (a prompt format's `end`); None stands for the tokens that the
    tokenizer and the model name. A reply is cut after `max_new_tokens`, or where the model's context ends. A prompt
    without tokens starts from BOS, or EOS where the tokenizer has no BOS. `progress` is called with (prompts done,
    prompts in all) after every batch. A batch has at most `batch_size` rows, and fewer of long prompts.

    Temperature 0 is greedy, and replies are then the same for any batch size up to rounding (in bf16 two
    tokens can tie). Above 0 every batch draws from `seed` and its own number; torch's global random state is
    left as it was. Sampling settings stored with the model (top-k, penalties) are not used. Train or
    evaluation mode, generation settings and adapters are as before afterwards, also after Ctrl-C.

    Raises DataError for a prompt that leaves no room in the model's context, ConfigError for bad settings.
    """
    if max_new_tokens < 1 or batch_size < 1 or temperature < 0:
        raise ConfigError(
            f"generate: max_new_tokens={max_new_tokens} and batch_size={batch_size} must be at least 1 "
            f"and temperature={temperature} at least 0"
        )
    if not prompts:
        return []
    end = end or default_end(model, tokenizer)
    pad = pad_token(model, tokenizer, end)
    filled, room = begin_prompts(model, tokenizer, prompts, max_new_tokens, end)
    replies: dict[int, Reply] = {}
    done = 0
    batches = list(_batches(filled, room, batch_size))

    def reply_to(number: int) -> list[list[int]]:
        settings = decoding_settings(room[batches[number][0]], pad, end, temperature)
        batch = [filled[row] for row in batches[number]]
        with _own_randomness(model, temperature, seed, number):
            return continue_batch(model, batch, pad, settings, partial(end.reached, tokenizer))

    with untouched(model), gathered(model), torch.no_grad():
        for rows, new_tokens in zip(batches, shared_over_ranks(reply_to, range(len(batches)), model), strict=True):
            for row, tokens in zip(rows, new_tokens, strict=True):
                replies[row] = end.read(tokenizer, tokens)
            done += len(rows)
            if progress is not None:
                progress(done, len(filled))
    return [replies[row] for row in range(len(filled))]


def begin_prompts(
    model: Any, tokenizer: Any, prompts: Prompts, max_new_tokens: int, end: ReplyEnd
) -> tuple[list[list[int]], list[int]]:
    """Return the tokens that generation starts from for every prompt, and how many new ones each may get.

    Raises DataError for a prompt that leaves no room in the model's context.
    """
    first = (tokenizer.bos_token_id, tokenizer.eos_token_id, pad_token(model, tokenizer, end))
    starts = [token for token in first if token is not None]
    begun = [list(prompt) or starts[:1] for prompt in prompts]
    return begun, _room(model, begun, max_new_tokens)


def default_end(model: Any, tokenizer: Any) -> ReplyEnd:
    """Return how a model ends its replies where no prompt format says so."""
    return ReplyEnd(frozenset(end_token_ids(tokenizer, named_end(model))))


def pad_token(model: Any, tokenizer: Any, end: ReplyEnd) -> int:
    """Return the token that fills up rows: the tokenizer's pad token if the model knows it, else an end, else 0."""
    return pad_within(tokenizer, embedding_rows(model), min(end.tokens, default=None))


def decoding_settings(most: int, pad: int, end: ReplyEnd, temperature: float) -> GenerationConfig:
    """Return the settings of a reply of up to `most` tokens; above temperature 0 it is drawn from the whole
    distribution.
    """
    settings = GenerationConfig(
        max_new_tokens=most, pad_token_id=pad, eos_token_id=sorted(end.tokens) or None, use_cache=True
    )
    if temperature > 0:
        settings.update(do_sample=True, temperature=temperature, top_k=0, top_p=1.0)
    return settings


def _room(model: Any, prompts: Prompts, max_new_tokens: int) -> list[int]:
    """Return how many new tokens each prompt may get, so that positions stay inside the model's context."""
    context = context_length(model)
    if context is None:
        return [max_new_tokens] * len(prompts)
    for number, prompt in enumerate(prompts):
        if len(prompt) >= context:
            raise DataError(
                f"prompt {number}: {len(prompt)} tokens leave no room for a reply in the model's context of "
                f"{context}; shorten it or leave it out"
            )
    return [min(max_new_tokens, context - len(prompt)) for prompt in prompts]


def _batches(prompts: Prompts, room: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield the row numbers of each batch; prompts of similar length stand together, the longest first.

    Rows of one batch have the same room; otherwise a long prompt would cut its neighbours' replies short. The longest
    batch comes first so that a lack of memory shows at once.
    """
    order = sorted(range(len(prompts)), key=lambda row: (room[row], -len(prompts[row]), row))
    batch: list[int] = []
    for row in order:
        most = max(1, min(batch_size, BATCH_TOKENS // (len(prompts[batch[0]]) + room[batch[0]]))) if batch else 0
        if batch and (len(batch) == most or room[row] != room[batch[0]]):
            yield batch
            batch = []
        batch.append(row)
    yield batch


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Within this block a model is in evaluation mode with neutral generation settings; both are restored after it."""
    modes = [(module, module.training) for module in model.modules()]
    owners = [module for module, _ in modes if "generation_config" in vars(module)]
    settings = [(owner, owner.generation_config) for owner in owners]
    try:
        model.eval()
        for owner in owners:
            owner.generation_config = GenerationConfig()
        yield
    finally:
        for owner, kept in settings:
            owner.generation_config = kept
        for module, mode in modes:
            module.training = mode


def drawn_seed(seed: int, number: int = 0) -> int:
    """Return torch's seed for a batch: a function of the user's seed and the batch's number."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


@contextmanager
def _own_randomness(model: Any, temperature: float, seed: int, number: int) -> Iterator[None]:
    """Within this block torch draws from the seed and the batch's number; the global random state is left as it was."""
    if temperature == 0:
        yield
        return
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(drawn_seed(seed, number))
        yield
