"""Text encoders and classifiers, which judges use: loaded from safetensors alone, without a model's own code."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoTokenizer

from unteach.errors import ModelError
from unteach.models.hub import cached_only, out_of_reach, reason
from unteach.models.soundness import check_finite
from unteach.text.escape import inert_line

log = logging.getLogger(__name__)

BATCH_SIZE = 32
Item = TypeVar("Item")
Result = TypeVar("Result")


def load_encoder(auto: Any, source: str, flag: str, what: str) -> tuple[Any, Any, list[str]]:
    """Load a model by the Auto class `auto`; return model, tokenizer and the tensors that the weights lack.

    The model is in float32, on the GPU where there is one. `flag` and `what` are for messages: the flag that names the
    model, and the kind of model that is wanted. Raises ModelError.
    """
    path = Path(source).expanduser()
    local = path.is_dir()
    if source[0] in "./~" and not local:
        raise ModelError(f"{flag}: no such directory; give the directory or hub id of {what}")
    unreached = "" if local else out_of_reach()
    name = str(path) if local else source
    try:
        with cached_only(bool(unreached)):
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model, loading = auto.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except Exception as problem:  # files of strangers, read by libraries that raise anything
        why = unreached if isinstance(problem, OSError) and unreached else reason(problem)
        raise ModelError(
            f"{flag}: cannot load {what} ({why}); give a directory or id with safetensors weights"
        ) from None
    check_finite(f"{flag}: {name}", model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, sorted(loading["missing_keys"])


def try_in_batches(
    items: Sequence[Item], call: Callable[[Sequence[Item]], Sequence[Result]], judge: str, size: int = BATCH_SIZE
) -> list[Result | None]:
    """Return what a model's `call` gives for each item; None where it fails twice, then on the item alone."""
    found: list[Result | None] = []
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        try:
            found += call(batch)
        except Exception as problem:  # whatever a model raises on one text must not end the evaluation
            if len(batch) > 1:
                found += try_in_batches(batch, call, judge, 1)
                continue
            log.warning("%s judge: no verdict (%s)", judge, inert_line(f"{type(problem).__name__}: {problem}", 200))
            found.append(None)
    return found


def longest_input(model: Any, tokenizer: Any, most: int) -> int:
    """Return how many tokens a text may have, at most `most`."""
    # Some encoders start their positions at 2, so two tokens of room are kept where only the positions are known.
    positions = getattr(model.config, "max_position_embeddings", None)
    return min(tokenizer.model_max_length, most, positions - 2 if positions else most)
