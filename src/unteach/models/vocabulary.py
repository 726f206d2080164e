"""Token ids that lie outside a model's embedding: which they are, and what is done about them."""

from typing import Any

from unteach.errors import ModelError
from unteach.text.escape import inert_line

_REMEDY = (
    "give the model the tokenizer that it was trained with, or resize it: model.resize_token_embeddings(len(tokenizer))"
)


def embedding_rows(model: Any) -> int | None:
    """Return how many tokens a model has an embedding for; None where that cannot be told."""
    try:
        layer = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return getattr(getattr(layer, "base_layer", layer), "num_embeddings", None)


def fit_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """Tell a tokenizer how many tokens its model knows, and let it pad with EOS where its pad token is not among them.

    Raises ModelError where EOS or BOS are not among them, which rows need.
    """
    rows = embedding_rows(model)
    tokenizer.embedding_rows = rows
    if rows is None:
        return
    for kind in ("eos_token", "bos_token"):
        number = getattr(tokenizer, f"{kind}_id")
        if number is not None and number >= rows:
            raise ModelError(f"{name}: its {kind} {outside(getattr(tokenizer, kind), number, rows)}")
    pad = tokenizer.pad_token_id
    if pad is not None and not 0 <= pad < rows:
        tokenizer.pad_token = tokenizer.eos_token


def pad_within(tokenizer: Any, rows: int | None, fallback: int | None) -> int:
    """Return the id to pad with: the tokenizer's own if the model knows it, else `fallback`, else 0."""
    known = (token for token in (tokenizer.pad_token_id, fallback) if token is not None)
    return next((token for token in known if 0 <= token and (rows is None or token < rows)), 0)


def outside(token: str, number: int, rows: int) -> str:
    """Say that a token is not among those that a model knows, and what to do."""
    return f"{inert_line(str(token), 60)!r} is token {number}, but the model knows only {rows}; {_REMEDY}"
