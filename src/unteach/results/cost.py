"""Measure what a stage of an arm costs: seconds, tokens, model FLOPs, memory and energy."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unteach.models.layers import decoder_layers, first_trained
from unteach.models.unwrap import size_of, unwrapped
from unteach.results.energy import EnergyMeter
from unteach.results.report import Cost


class Meter:
    """Measures one stage: seconds, energy and peak memory while it runs, and the tokens that are added to it.

    It starts when it is made, unless `waiting`. Two meters that run at once falsify each other's peak memory.
    """

    def __init__(self, waiting: bool = False) -> None:
        self.tokens = {"forward": 0, "backward": 0, "generated": 0, "kept": 0}
        self._seconds, self._joules, self._peak = 0.0, 0.0, 0
        self._energy: EnergyMeter | None = None
        self._began: float | None = None
        if not waiting:
            self.start()

    def start(self) -> None:
        """Start measuring, or go on with it."""
        _reset_peak()
        self._energy = EnergyMeter()
        self._began = time.monotonic()

    def stop(self) -> None:
        """Stop measuring until the next `start`."""
        if self._began is not None and self._energy is not None:
            self._seconds += time.monotonic() - self._began
            self._joules += self._energy.joules() or 0.0
            self._peak = max(self._peak, peak_bytes())
            self._began = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the block out of the measurement."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @property
    def seconds(self) -> float:
        """Seconds measured so far."""
        return self._seconds + (time.monotonic() - self._began if self._began is not None else 0.0)

    def add(self, forward: int = 0, backward: int = 0, generated: int = 0, kept: int = 0) -> None:
        """Add tokens, counted as in `flops_of`."""
        for name, count in (("forward", forward), ("backward", backward), ("generated", generated), ("kept", kept)):
            self.tokens[name] += count

    def cost(self, model: Any, arm: str, stage: str, forward: int = 0, backward: int = 0, generated: int = 0) -> Cost:
        """Stop, and return what the stage cost, with these tokens and those that were added before."""
        self.stop()
        self.add(forward, backward, generated)
        return Cost(
            arm=arm,
            stage=stage,
            wall_seconds=self._seconds,
            tokens=sum(count for name, count in self.tokens.items() if name != "kept"),
            tokens_forward=self.tokens["forward"],
            tokens_backward=self.tokens["backward"],
            tokens_generated=self.tokens["generated"],
            flops=flops_of(model, **self.tokens),
            peak_bytes=self._peak,
            energy_joules=self._joules or None,
        )

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on, as JSON."""
        return {"tokens": dict(self.tokens), "seconds": self.seconds, "joules": self._joules, "peak": self._peak}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.tokens |= state["tokens"]
        self._seconds, self._joules, self._peak = state["seconds"], state["joules"], state["peak"]


def flops_of(model: Any, forward: int = 0, backward: int = 0, generated: int = 0, kept: int = 0) -> float:
    """Return model FLOPs: 2·N·(forward + generated) + (4·N − 2·B + 2·T)·backward − 2·B·kept.

    `forward` counts tokens that went forward only, `backward` those that went forward and backward, `generated` those
    that were generated one by one; `kept` of all these were not read by the layers below the first trained one, since
    their states were kept. N counts the parameters that take part in a multiplication, T those of them that are trained
    (all, or an adapter's), and B those of the layers below the first trained one, which need no gradient at all. A
    token costs 2 FLOPs a parameter for the forward pass, 2 for the gradient of the activations, and 2 for the gradient
    of each trained parameter. Left out: attention scores (a share of about length / (6 · width)), padding, and what
    activation checkpointing computes twice. Source: arXiv 2001.08361, section 2.1. Differs: the output layer counts,
    and frozen parameters have no gradient.
    """
    whole = model_flops(*multiplying_parameters(model), forward, backward, generated)
    return whole - 2.0 * _untouched(model) * (backward + kept)


def _untouched(model: Any) -> int:
    """Count the parameters of the layers below the first trained one."""
    first = first_trained(model)
    layers = decoder_layers(model)[1][:first] if first else []
    return sum(_size(weight) for layer in layers for weight in layer.parameters())


def _size(weight: Any) -> int:
    """Return how many weights a parameter holds; packed 4-bit ones hold two in each place."""
    return size_of(weight) * (2 if type(weight).__name__ == "Params4bit" else 1)


def model_flops(parameters: float, trained: float, forward: float, backward: float, generated: float) -> float:
    """Return the FLOPs of `flops_of` from the counts of `multiplying_parameters`."""
    return float(2 * parameters * (forward + generated) + (4 * parameters + 2 * trained) * backward)


def multiplying_parameters(model: Any) -> tuple[int, int]:
    """Count the parameters that take part in a multiplication, and those of them that are trained.

    An embedding table counts only where it is also the output layer. Packed 4-bit weights count by the number of
    weights that they hold. In a mixture of experts all experts count, which is too many.
    """
    model = unwrapped(model)
    looked_up = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head else None
    if head is not None:
        looked_up -= {id(p) for p in head.parameters()}
    counted = [p for p in model.parameters() if id(p) not in looked_up]
    sizes = [_size(p) for p in counted]
    return sum(sizes), sum(size for size, p in zip(sizes, counted, strict=True) if p.requires_grad)


def flops_in(costs: Sequence[Cost]) -> float:
    """Add up the model FLOPs of stages, evaluation left out."""
    return sum(cost.flops or 0.0 for cost in costs if not cost.is_evaluation)


def seconds_in(costs: Sequence[Cost]) -> float:
    """Add up the seconds of stages, evaluation left out."""
    return sum(cost.wall_seconds or 0.0 for cost in costs if not cost.is_evaluation)


def peak_bytes() -> int:
    """Return the peak memory since the last stage began: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # elsewhere: since the process began
    return peak if sys.platform == "darwin" else peak * 1024


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
