"""An update: what training changed in a model's weights, put on the model at any strength and taken off again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unteach.errors import ModelError
from unteach.models.unwrap import unwrapped

Weights = Mapping[str, Tensor]

_FACTORS = {"lora_A": False, "lora_embedding_A": False, "lora_B": True, "lora_embedding_B": True}
"""The two factors of a LoRA adapter, and whether the strength goes to it: ΔW = B·A grows with one of them alone."""


@dataclass
class Update:
    """Weights that are `start` + s · `change` at scale s, by their names in the model.

    `start` are the weights at scale 0; None: those that the model has when the update is first applied. `end` are the
    weights at scale 1, bit by bit, where they are known: `start` + `change` may differ from them by a rounding.
    """

    change: Weights
    start: Weights | None = None
    end: Weights | None = None
    _held: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, before: Weights, after: Weights) -> "Update":
        """Return the update between two sets of weights, such as two `state_dict()`s; equal weights are left out.

        In those of a LoRA adapter, the factors A are those of `after` at every scale, and B is scaled. Raises
        ModelError where the two are not weights of the same model.
        """
        lacking = sorted(before.keys() ^ after.keys())
        lacking += [name for name in before.keys() & after.keys() if before[name].shape != after[name].shape]
        if lacking:
            raise ModelError(f"no update between different models: only one has {lacking[0]} in this shape")
        start, end = {}, {}
        for name in (name for name, weight in before.items() if not torch.equal(weight, after[name])):
            scaled = next((scaled for factor, scaled in _FACTORS.items() if f"{factor}." in f"{name}."), True)
            start[name] = (before if scaled else after)[name].detach().clone()
            end[name] = after[name].detach().clone()
        return cls({name: _wide(end[name]) - _wide(start[name]) for name in end}, start, end)

    @classmethod
    def of_adapter(cls, model: Any) -> "Update":
        """Return the update that the LoRA adapter of a model is: at scale 0 there is none, at 1 it is as trained.

        Raises ModelError for a model without one, and for an adapter whose strength is not its factor B alone.
        """
        settings = getattr(unwrapped(model), "peft_config", {})
        if not settings:
            raise ModelError(f"{type(unwrapped(model)).__name__} has no adapter; make an update with Update.of")
        for config in settings.values():
            others = ("use_dora", "modules_to_save", "trainable_token_indices")
            other = next((name for name in others if getattr(config, name, None)), None)
            if getattr(config, "peft_type", None) != "LORA" or other or getattr(config, "bias", "none") != "none":
                raise ModelError(f"an adapter with {other or 'other parts than LoRA'} has no strength to scale")
        named = unwrapped(model).named_parameters()
        end = {n: w.detach().clone() for n, w in named if any(f".{b}." in f".{n}." for b, on in _FACTORS.items() if on)}
        return cls({n: _wide(w) for n, w in end.items()}, {n: torch.zeros_like(w) for n, w in end.items()}, end)

    @torch.no_grad()
    def apply(self, model: Any, scale: float) -> None:
        """Set the weights of a model to those at `scale`, whatever scale it has now; `undo` takes it back.

        Computed in float32 at least and rounded to the model's own precision. Raises ModelError for another model.
        """
        weights = self._weights(model)
        if not self._held:
            self._held = {name: weight.detach().clone() for name, weight in weights.items()}
        start = self._held if self.start is None else self.start
        for name, weight in weights.items():
            if scale == 0:
                weight.copy_(start[name])
            elif scale == 1 and self.end is not None:
                weight.copy_(self.end[name])
            else:
                change = _wide(self.change[name]).to(weight.device)
                weight.copy_(_wide(start[name]).to(weight.device) + scale * change)

    @torch.no_grad()
    def undo(self, model: Any) -> None:
        """Put back, bit by bit, the weights that the model had before the first `apply`; without one, do nothing."""
        if self._held:
            for name, weight in self._weights(model).items():
                weight.copy_(self._held[name])
            self._held = {}

    def _weights(self, model: Any) -> dict[str, Tensor]:
        """Return the weights of a model that the update changes."""
        there = dict(unwrapped(model).named_parameters(remove_duplicate=False))  # tied weights have two names
        for name, change in self.change.items():
            if name not in there or there[name].shape != change.shape:
                kind = type(unwrapped(model)).__name__
                raise ModelError(f"the update is of another model: {kind} has no {name} of shape {tuple(change.shape)}")
        return {name: there[name] for name in self.change}


def _wide(weight: Tensor) -> Tensor:
    """Return a weight in float32, or in its own precision where that is higher."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
