"""Whether a model's files can be meant: sizes that the weights bear out, and weights that are numbers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from unteach.errors import ModelError
from unteach.models.unwrap import own_part
from unteach.text.escape import inert_line

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "n_positions", "num_attention_heads", "num_key_value_heads")
_PACKED = 64
"""How many times larger than its tensors a model may be, since quantised weights are packed."""
_MOST_LAYERS = 10_000
"""Most layers of a model whose weights are not here yet."""


def check_sizes(name: str, config: Any, shapes: Sequence[Sequence[int]]) -> None:
    """Refuse a config that promises a far larger model than weights of these shapes; without any, only monsters.

    Building such a model takes all memory, or no end of time. Raises ModelError that names the field.
    """
    layers, widest = _MOST_LAYERS, 0
    if shapes:
        layers, widest = len(shapes), _PACKED * max((max(shape, default=1) for shape in shapes), default=1)
    inner = config.get_text_config()
    bounds = {"num_hidden_layers": layers} | (dict.fromkeys(_SIZES, widest) if widest else {})
    for field, most in bounds.items():
        value = getattr(inner, field, None)
        if isinstance(value, int) and (value > most or (value < 1 and field == "num_hidden_layers")):
            held = f"{len(shapes)} tensors, the largest of {widest // _PACKED} rows" if shapes else "no such model"
            raise ModelError(
                f"{name}: config.json says {field} {inert_line(str(value), 40)}, and the weights hold {held}; put the "
                "config.json of these weights back"
            )


def tensor_shapes(directory: Path) -> list[list[int]]:
    """Return the shapes of all tensors in a directory's safetensors, of which only the headers are read."""
    shapes = []
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            shapes += [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118 (the file is no mapping)
    return shapes


def check_finite(name: str, model: Any) -> None:
    """Refuse a model with a weight that is no finite number, here that of this rank's parts if it is sharded.

    Raises ModelError that names the tensor.
    """
    refuse_infinite(name, ((key, own_part(weight.detach())) for key, weight in model.named_parameters()))


def refuse_infinite(name: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise ModelError for the first tensor with NaN or an infinity in it; copies none of them."""
    for key, tensor in tensors:
        if not tensor.is_floating_point() or not tensor.numel() or _is_finite(tensor.detach()):
            continue
        values = tensor.detach().float()
        kinds = [word for word, found in (("NaN", values.isnan()), ("infinite", values.isinf())) if bool(found.any())]
        wrong = int((~values.isfinite()).sum())
        narrow = tensor.dtype != torch.float32 and "NaN" not in kinds
        remedy = "load them with --dtype float32, or " if narrow else ""
        raise ModelError(
            f"{name}: {wrong:,} of {values.numel():,} values of the tensor {inert_line(key, 200)} are "
            f"{' or '.join(kinds)} (as {str(tensor.dtype).removeprefix('torch.')}), so nothing can be learned or "
            f"measured; {remedy}train or fetch the weights again"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Tell whether all values are finite; the smallest and the largest of a tensor are NaN if any value is."""
    try:
        low, high = torch.aminmax(tensor)
    except (RuntimeError, NotImplementedError):  # types of eight bits
        low, high = torch.aminmax(tensor.to(torch.float32))
    return bool(torch.isfinite(low) & torch.isfinite(high))
