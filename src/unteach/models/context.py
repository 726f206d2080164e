"""The length of a model's context."""

from typing import Any

_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
)


def context_length(model: Any) -> int | None:
    """Return how many tokens prompt and reply may have together (a model or its config); None where unlimited."""
    config = getattr(model, "config", model)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    found = (getattr(config, field, None) for field in _FIELDS)
    return next((length for length in found if isinstance(length, int) and length > 0), None)
