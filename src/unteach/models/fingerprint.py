"""A fingerprint of a model's weights, for the keys of caches."""

import hashlib
from typing import Any

import torch


def model_fingerprint(model: Any) -> str:
    """Identify the weights of a model by 16 hex digits; dtype and every change made in memory count."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
