"""Replies of a model that does not change are generated once and kept: the original and the retrained model are asked
the same prompts in every run that compares with them.

An entry is one JSON file under the user's cache, named by a digest of all that decides the replies. It holds what the
model said, harmful or not, so only its owner may read it.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unteach.cache import cache_directory
from unteach.models import decoding, generate

MOST_BYTES = 256 * 2**20
"""Largest size of all entries together; beyond it, those that were not used for longest go."""


class KeptReplies(list[str]):
    """Replies that came from disk: nothing was generated for them."""


def replies_of(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    key: str | None,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Return the model's reply to every prompt, as `generate` does; from disk where they are known (`KeptReplies`).

    `key` names the model's weights as they are now (`model_fingerprint`); None keeps nothing, which is right for every
    model that training can still move. Broken entries are ignored and made again; a disk that cannot be written is no
    error. Raises what `generate` raises.
    """
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    path = None if key is None or not prompts else _entry(model, tokenizer, prompts, key, settings)
    kept = _read(path, len(prompts)) if path else None
    if kept is not None:
        if progress is not None:
            progress(len(kept), len(kept))
        return kept
    replies = generate.generate(model, tokenizer, prompts, progress=progress, **settings)
    if path:
        with contextlib.suppress(OSError):
            _write(path, replies)
            _make_room(path.parent, keep=path)
    return replies


def tokens_of(tokenizer: Any, prompts: Sequence[Sequence[int]], replies: Sequence[str]) -> tuple[int, int]:
    """Return how many tokens were read and written for these replies, each with its end; kept ones count too."""
    written = sum(len(tokenizer(reply, add_special_tokens=False, verbose=False)["input_ids"]) + 1 for reply in replies)
    return sum(map(len, prompts)), written


def _entry(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], key: str, settings: dict[str, Any]) -> Path:
    """Name the file of these replies by everything that they depend on.

    Weights do not tell how they are used, so the config counts too; the batches count because sampling draws batch by
    batch, and rounding may decide between two tokens that are equally likely.
    """
    config = model.config.to_dict() | {"attention": model.config._attn_implementation}
    facts = {
        "model": key,
        "config": {name: value for name, value in config.items() if name not in ("_name_or_path", "_commit_hash")},
        "dtype": str(model.dtype),
        "device": model.device.type,
        "ends": generate.end_token_ids(model, tokenizer),
        "starts": [tokenizer.bos_token_id, tokenizer.pad_token_id],
        "tokenizer": _tokenizer_digest(tokenizer),
        "settings": settings if settings["temperature"] else settings | {"seed": 0},
        "batches": [generate.BATCH_TOKENS, decoding.STRETCH],
        "versions": [importlib.metadata.version(name) for name in ("unteach", "torch", "transformers", "tokenizers")],
        "prompts": [list(prompt) for prompt in prompts],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return cache_directory() / "replies" / f"{digest[:32]}.json"


def _tokenizer_digest(tokenizer: Any) -> str:
    """Identify how tokens become text."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    told = inner.to_str() if inner is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    told += json.dumps([type(tokenizer).__name__, sorted(tokenizer.all_special_ids)])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path, count: int) -> KeptReplies | None:
    """Return the replies of an entry; None where there is none, or where it is broken."""
    try:
        replies = json.loads(path.read_text(encoding="utf-8"))["replies"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(replies, list) or len(replies) != count or not all(isinstance(r, str) for r in replies):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used now: others go first
    return KeptReplies(replies)


def _write(path: Path, replies: Sequence[str]) -> None:
    """Put an entry in place in one step; the temporary file, and so the entry, is readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".partial", delete=False) as file:
        temporary = Path(file.name)
        try:
            json.dump({"replies": list(replies)}, file)
            file.close()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _make_room(directory: Path, keep: Path) -> None:
    """Remove what was not used for longest, until the rest is within bounds; `keep` stays."""
    entries = []
    for path in directory.iterdir():
        with contextlib.suppress(OSError):  # another run may have removed it
            found = path.stat()
            entries.append((found.st_mtime, found.st_size, path))
    held = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if held <= MOST_BYTES:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            held -= size
