"""Replies of a model that does not change are generated once and kept: every run that compares with the original or
the retrained model asks it the same prompts.

An entry holds what the model said, harmful or not.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from typing import Any

from unteach.disk.cache import Cache, cache_directory
from unteach.models import decoding, generate
from unteach.models.fingerprint import config_facts
from unteach.models.ranks import on_first_rank
from unteach.models.reply import Reply, ReplyEnd
from unteach.models.reply_server import ReplyServer
from unteach.progress import OnProgress

MOST_BYTES = 256 * 2**20
"""Largest size of all entries together."""


class KeptReplies(list[Reply]):
    """Replies that came from disk: nothing was generated for them."""


def generate_cached(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    key: str | None,
    max_new_tokens: int,
    end: ReplyEnd | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    progress: OnProgress | None = None,
    server: ReplyServer | None = None,
) -> list[Reply]:
    """Return the model's reply to every prompt, as `generate` does; from disk where they are known (`KeptReplies`).

    `end` is as in `generate`. `key` names the model's weights as they are now (`model_fingerprint`). With None nothing
    is kept, as is right for a model that is still trained. A `server` that serves the same model generates in its
    place; its replies are kept apart, by its address and its name for the model. Raises what `generate` raises, and
    ConfigError where a server gives no reply.
    """
    end = end or generate.default_end(model, tokenizer)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    arguments = (model, tokenizer, prompts)

    def generated() -> list[Reply]:
        if server is not None and prompts:
            return on_first_rank(server.replies, *arguments, end=end, progress=progress, **settings)
        return generate.generate(*arguments, end=end, progress=progress, **settings)

    if key is None or not prompts:
        return generated()
    cache = Cache(cache_directory() / "replies", MOST_BYTES)
    digest = _digest(*arguments, key, end, settings, server)
    kept = on_first_rank(cache.get, digest).get("replies")
    if isinstance(kept, list) and len(kept) == len(prompts) and all(map(_are_ids, kept)):
        if progress is not None:
            progress(len(kept), len(kept))
        return KeptReplies(end.read(tokenizer, ids) for ids in kept)
    replies = generated()
    on_first_rank(cache.put, digest, {"replies": [reply.ids for reply in replies]})
    return replies


def tokens_of(prompts: Sequence[Sequence[int]], replies: Sequence[Reply]) -> tuple[int, int]:
    """Return how many tokens were read and written for these replies; kept ones count too."""
    return sum(map(len, prompts)), sum(len(reply.ids) for reply in replies)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(token, int) and token >= 0 for token in value)


def _digest(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    key: str,
    end: ReplyEnd,
    settings: dict[str, Any],
    server: ReplyServer | None,
) -> str:
    """Return a digest of everything that these replies depend on.

    The same weights can be used in different ways, so the config counts too. The batches count because sampling draws
    batch by batch, and because rounding may decide between two tokens that are equally likely.
    """
    facts: dict[str, Any] = {
        "model": key,
        "config": config_facts(model),
        "dtype": str(model.dtype),
        "device": model.device.type,
        "ends": [sorted(end.tokens), end.text],
        "starts": [tokenizer.bos_token_id, tokenizer.pad_token_id],
        "tokenizer": _tokenizer_digest(tokenizer),
        "settings": settings if settings["temperature"] else settings | {"seed": 0},
        "batches": [generate.BATCH_TOKENS, decoding.STRETCH],
        "versions": [importlib.metadata.version(name) for name in ("unteach", "torch", "transformers", "tokenizers")],
        "prompts": [list(prompt) for prompt in prompts],
    }
    if server is not None:
        facts["server"] = [server.endpoint.base, server.endpoint.model]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _tokenizer_digest(tokenizer: Any) -> str:
    """Return a digest of how the tokenizer turns tokens into text."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    described = inner.to_str() if inner is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    described += json.dumps([type(tokenizer).__name__, sorted(tokenizer.all_special_ids)])
    return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()
