"""What identifies a model, for the keys of caches: its weights and its config."""

import hashlib
from operator import itemgetter
from typing import Any

import torch

from unteach.models.ranks import require_same
from unteach.models.unwrap import unwrapped, whole_tensor

_SAID_ELSEWHERE = ("_name_or_path", "_commit_hash", "use_cache", "transformers_version", "dtype")


def model_fingerprint(model: Any) -> str:
    """Identify the weights of a model by 16 hex digits; dtype and every change made in memory count."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict(keep_vars=True).items(), key=itemgetter(0)):
        tensor = whole_tensor(tensor)
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def same_fingerprint(model: Any) -> str:
    """Return the fingerprint of a model. Raises ConfigError where the ranks of this run have loaded different ones."""
    fingerprint = model_fingerprint(model)
    require_same({"model": fingerprint})
    return fingerprint


def config_facts(model: Any) -> list[tuple[str, str]]:
    """Return what a config says of how the weights are used: the same weights mean another model under another one."""
    config = unwrapped(model).config
    told = config.to_dict() | {"attention": getattr(config, "_attn_implementation", None)}
    return sorted((name, repr(value)) for name, value in told.items() if name not in _SAID_ELSEWHERE)
