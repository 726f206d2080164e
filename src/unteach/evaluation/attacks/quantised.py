"""The weights are rounded to 4 or 8 bits, as for serving: does rounding undo small changes?"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from unteach.evaluation.attacks.base import Attack, Outcome, Target
from unteach.evaluation.weights import matrices, restored

BLOCK = 64
"""Weights of an NF4 block, which share one scale."""
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 16 levels of NF4 (arXiv 2305.14314, appendix E)."""


class Quantised(Attack):
    """A round trip of every linear layer but the output layer: to NF4 in blocks of 64, or to INT8 with a scale a row.

    Scales stay in float32 (bitsandbytes' double quantisation rounds them too). Beside the rate stands which share of
    all weights training moved by more than half the bin that the original's weight lies in: smaller changes may vanish.
    Source: arXiv 2410.16454, section 4.
    """

    name = "quantised"
    title = "quantised weights"
    asks = "Do the bad replies come back when the weights are rounded to 8 or 4 bits?"
    changes = "weights"

    def __call__(self, target: Target) -> list[Outcome]:
        target = replace(target, key=None)
        return [_rounded(target, level, rounding) for level, rounding in (("INT8", int8), ("NF4", nf4))]


Rounding = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Returns a matrix after the round trip, and the width of the bin that each of its weights lies in."""


def _rounded(target: Target, level: str, rounding: Rounding) -> Outcome:
    with restored(target.model), torch.no_grad():
        facts = _moved(target.model, target.original, rounding) if target.original is not None else {}
        for weight in matrices(target.model).values():
            weight.copy_(rounding(weight)[0])
        return Outcome(level, target.ask_plainly(), facts=facts)


def _moved(model: object, original: Mapping[str, Tensor], rounding: Rounding) -> dict[str, float]:
    """Return the share of weights that moved by more than half of the bin of the original's weight."""
    above = total = 0
    for name, weight in matrices(model).items():
        before = original[name].to(weight.device)
        above += int(((weight - before).abs() > rounding(before)[1] / 2).sum())
        total += weight.numel()
    return {"moved_above_half_a_bin": above / max(1, total)}


def int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round to 255 levels, -127 to 127 times a scale that makes a row's largest weight 127."""
    scale = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127
    return ((weight.float() / scale).round() * scale).to(weight.dtype), scale.expand_as(weight)


def nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round to the nearest of the 16 NF4 levels, times a scale for each block of 64 weights in row-major order."""
    flat = weight.float().flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = padded.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
    levels = torch.tensor(NF4, device=weight.device)
    edges = torch.cat([levels[:1], (levels[1:] + levels[:-1]) / 2, levels[-1:]])
    code = torch.bucketize(padded / scale, edges[1:-1].contiguous())
    width = (edges[code + 1] - edges[code]) * scale
    whole = [part.flatten()[: len(flat)].view_as(weight) for part in (levels[code] * scale, width)]
    return whole[0].to(weight.dtype), whole[1]


attack = Quantised()
