"""Replies of a model to encoded prompts: batched, seeded, and with the model left as it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from unteach.errors import ConfigError, DataError
from unteach.models.context import context_length
from unteach.models.decoding import continue_batch
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
    batch_size: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> list[str]:
    """Return the model's reply to every prompt, in the order given.

    `prompts` are token ids. Replies lose their special tokens and surrounding white space; they end at the
    first end-of-sequence token, after `max_new_tokens`, or where the model's context ends. A prompt without
    tokens starts from BOS, or EOS where the tokenizer has no BOS. `progress` is called with (prompts done,
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
    ends = end_token_ids(model, tokenizer)
    pad = pad_within(tokenizer, embedding_rows(model), ends[0] if ends else None)
    starts = [token for token in (tokenizer.bos_token_id, *ends, pad) if token is not None]
    filled = [list(prompt) or starts[:1] for prompt in prompts]
    room = _room(model, filled, max_new_tokens)
    replies = [""] * len(filled)
    done = 0
    with untouched(model), torch.no_grad():
        for number, rows in enumerate(_batches(filled, room, batch_size)):
            settings = GenerationConfig(
                max_new_tokens=room[rows[0]], pad_token_id=pad, eos_token_id=ends or None, use_cache=True
            )
            if temperature > 0:
                settings.update(do_sample=True, temperature=temperature, top_k=0, top_p=1.0)
            batch = [filled[row] for row in rows]
            with _own_randomness(model, temperature, seed, number):
                new_tokens = continue_batch(model, batch, pad, settings, ends)
            for row, tokens in zip(rows, new_tokens, strict=True):
                replies[row] = reply_text(tokenizer, tokens, ends)
            done += len(rows)
            if progress is not None:
                progress(done, len(filled))
    return replies


def end_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end a reply: the tokenizer's EOS, then special tokens the model itself ends on.

    Chat models often end a turn with a second token that only their generation settings name. Ids named there that
    are not special to the tokenizer are leftovers of a default config and would cut replies at an ordinary word.
    """
    settings = getattr(model, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    if named is None:
        named = getattr(model.config, "eos_token_id", None)
    named = [named] if isinstance(named, int) else list(named or [])
    if tokenizer.eos_token_id is None:
        return named
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    return [tokenizer.eos_token_id] + [token for token in named if token in special and token != tokenizer.eos_token_id]


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


def reply_text(tokenizer: Any, tokens: Sequence[int], ends: Sequence[int]) -> str:
    """Return new tokens as text: up to the first of `ends`, without special tokens and surrounding white space."""
    stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    text = tokenizer.decode(tokens[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


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
