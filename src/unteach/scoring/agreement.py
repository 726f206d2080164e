"""Whether a faster way to score gives what the plain way gives."""

from typing import Any

import torch
from torch import Tensor

from unteach.models.unwrap import unwrapped
from unteach.scoring.score import last_hidden_states, score
from unteach.scoring.trees import TreeBatch


@torch.no_grad()
def trees_agree(model: Any, batch: TreeBatch) -> tuple[bool, float]:
    """Return whether a batch is scored like its plain rows, and the largest difference at a token, in nats.

    They differ for models whose attention ignores the mask or the positions, and for windows shorter than the row. In
    float32 the largest difference must be small; in half precision the mean, since single tokens are noisy there.
    """
    apart = batch.plain()
    left = score(last_hidden_states(model, batch), batch.targets).log_probs
    return alike(left, score(last_hidden_states(model, apart), apart.targets).log_probs, model)


def alike(left: Tensor, right: Tensor, model: Any) -> tuple[bool, float]:
    """Return whether two ways to score tokens agree up to rounding, and the largest difference, in nats."""
    difference = (left - right).abs()
    half = unwrapped(model).dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(left.device.type)
    scale = 1 + float(right.abs().mean())
    agree = float(difference.mean()) <= 0.02 * scale if half else float(difference.max()) <= 1e-3 * scale
    return agree, float(difference.max())


def tree_limit(model: Any) -> int | None:
    """Return the most places that a tree may take: the sliding window, which a 4-D mask overrides; None without one."""
    config = unwrapped(model).config.get_text_config()
    uses_window = getattr(config, "use_sliding_window", True)
    return getattr(config, "sliding_window", None) if uses_window else None
